package podtest

import (
	"path/filepath"
	"strings"
	"testing"
)

func TestCapture(t *testing.T) {
	t.Parallel()
	pod := NewPod(t, BridgeCNI)
	capture := StartCapture(t, pod.Node, pod.NodeLink, "icmp")
	ping(t, pod.NS, pod.Gateway)
	if line := capture.Wait("ICMP echo reply"); !strings.Contains(line, pod.MAC.String()) {
		t.Errorf("line has no MAC: %s", line)
	}
	if lines := capture.Stop(); len(lines) != 2 {
		t.Errorf("captured %d packets, want 2:\n%s", len(lines), strings.Join(lines, "\n"))
	}
	if again := capture.Stop(); len(again) != 2 {
		t.Errorf("the second Stop gives %d lines", len(again))
	}
	out := pod.Node.Run(t, "tcpdump", "-n", "-r", capture.PCAP)
	if !strings.Contains(out, "ICMP echo request") {
		t.Errorf("%s: %s", filepath.Base(capture.PCAP), out)
	}
}
