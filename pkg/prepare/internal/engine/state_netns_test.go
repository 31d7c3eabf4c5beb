package engine

import (
	"maps"
	"slices"
	"testing"

	"github.com/virt-launcher-net/virt-launcher-net/internal/podtest"
)

// A sysctl that may be changed is read, from wherever it is asked for; one that may
// not be and is on is told of; one that the node does not have is neither.
func TestSysctls(t *testing.T) {
	t.Parallel()
	const writable, readOnly = "net.ipv4.ip_forward", "net.ipv4.tcp_available_congestion_control"
	pod := podtest.NewBarePod(t)
	var files Sysctls
	err := pod.Do(func() error {
		files = OpenSysctls([]string{writable, readOnly, "net.no-such"})
		return SetSysctl{Name: writable, To: "1"}.Do(nil)
	})
	if err != nil {
		t.Fatal(err)
	}
	defer files.Close()
	if got := files.Read(); !maps.Equal(got, map[string]string{writable: "1"}) {
		t.Errorf("read %v", got)
	}
	if !slices.Equal(files.Stuck, []string{readOnly}) {
		t.Errorf("stuck are %v", files.Stuck)
	}
	err = podtest.NewBarePod(t).Do(func() error {
		return SetSysctl{Name: writable, To: "0"}.Do(nil)
	})
	if got := files.Read()[writable]; err != nil || got != "1" {
		t.Errorf("it is read as %q, %v", got, err)
	}
}
