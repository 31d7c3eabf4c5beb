package prepare

import (
	"bytes"
	"log/slog"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/virt-launcher-net/virt-launcher-net/internal/podtest"
	"github.com/virt-launcher-net/virt-launcher-net/pkg/prepare/internal/engine"
)

// Restore deletes nothing that was not made for the VM, whatever its name, and
// says so. What it can't do beside that is an error with the way out.
func TestRestoreLeavesOthersLinksAlone(t *testing.T) {
	t.Parallel()
	veth := func(name string) string { return "link add " + name + " type veth peer name other0" }
	for _, c := range []struct {
		name   string
		lines  []string // ip(8), in the prepared pod
		stays  string   // the link that is another's
		err    string   // the restore's; the link is deleted and it is tried again
		log    string
		isGone bool // the pod interface
	}{
		{"a veth in the placeholder's place", []string{"link del eth0", veth("eth0")}, "eth0", "give that another name", "", false},
		{
			"a switch in the placeholder's place",
			[]string{"link del eth0", "link add eth0 address 02:00:00:00:00:09 " + podtest.Switch},
			"eth0", "a link of kind " + podtest.SwitchKind + " (index ", "", false,
		},
		{"a tap in the placeholder's place", []string{"link del eth0", "tuntap add dev eth0 mode tap"}, "eth0", "taken by a tap", "", false},
		{"a veth beside what was made", []string{"link del eth0", veth("eth0"), "link del up-eth0"}, "eth0", "", "eth0 is left alone", true},
		{"a veth in the switch's place", []string{"link del br-eth0", veth("br-eth0")}, "br-eth0", "", "br-eth0 is left alone", false},
		{"a switch in the switch's place", []string{"link del br-eth0", "link add br-eth0 " + podtest.Switch}, "br-eth0", "", "br-eth0 is left alone", false},
		{"another tap", []string{"link del tap-eth0", "tuntap add dev tap-eth0 mode tap"}, "tap-eth0", "", "tap-eth0 is left alone", false},
		{"a tun", []string{"link del tap-eth0", "tuntap add dev tap-eth0 mode tun"}, "tap-eth0", "", "tap-eth0 is left alone", false},
		{
			"another link with the index of the uplink",
			[]string{"link del up-eth0", "link add other0 index INDEX " + podtest.Switch},
			"other0", "", "the pod interface eth0 is gone", true,
		},
		{
			"another veth with the index of the uplink",
			[]string{"link del up-eth0", "link add net1 index INDEX type veth peer name other0"},
			"net1", "", "the pod interface eth0 is gone", true,
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			pod := podtest.NewPod(t, podtest.BridgeCNI)
			before := podtest.TakeSnapshot(t, pod.NS)
			dir := t.TempDir()
			index := ""
			pod.In(t, func() error {
				s, err := engine.ReadLinks()
				index = strconv.Itoa(s.Index("eth0"))
				if err != nil {
					return err
				}
				return ApplyAll(t.Context(), dir, Options{}, "eth0")
			})
			for _, line := range c.lines {
				pod.IP(t, strings.ReplaceAll(line, "INDEX", index))
			}
			mine := func() string { return pod.Run(t, "ip", "-o", "-d", "link", "show", c.stays) }
			link := mine()
			restored := func() (log string, err error) {
				var b bytes.Buffer
				pod.In(t, func() error {
					store, e := OpenStore(t.Context(), dir)
					if e != nil {
						return e
					}
					defer store.Close()
					err = Restore(t.Context(), slog.New(slog.NewTextHandler(&b, nil)), store)
					return nil
				})
				return b.String(), err
			}
			log, err := restored()
			if c.err != "" {
				if err == nil || !strings.Contains(err.Error(), c.err) {
					t.Fatalf("restore: %v, want an error with %q", err, c.err)
				}
				if now := mine(); now != link {
					t.Errorf("%s was\n%sand is\n%s", c.stays, link, now)
				}
				pod.IP(t, "link del "+c.stays)
				log, err = restored()
			} else if now := mine(); now != link {
				t.Errorf("%s was\n%sand is\n%s", c.stays, link, now)
			}
			if err != nil || !strings.Contains(log, c.log) {
				t.Errorf("restore: %v, want a log with %q:\n%s", err, c.log, log)
			}
			if c.err == "" {
				pod.IP(t, "link del "+c.stays)
			}
			if left := pod.Run(t, "ip", "-o", "link"); c.isGone && strings.Count(left, "\n") != 1 {
				t.Errorf("there are left\n%s", left)
			}
			if d := podtest.Diff(before, podtest.TakeSnapshot(t, pod.NS)); d != "" && !c.isGone {
				t.Errorf("after restore:\n%s", d)
			}
		})
	}
}

// A pod interface that is gone is told with what helps, and no other link is
// taken for it.
func TestApplyWithoutTheUplink(t *testing.T) {
	t.Parallel()
	for name, lines := range map[string][]string{
		"gone":                  nil,
		"another has its index": {"link add net1 index INDEX type veth peer name other0"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			pod := podtest.NewPod(t, podtest.Flannel)
			dir := t.TempDir()
			pod.In(t, func() error { return ApplyAll(t.Context(), dir, Options{}, "eth0") })
			pod.In(t, func() error {
				s, err := engine.ReadLinks()
				for i := range lines {
					lines[i] = strings.ReplaceAll(lines[i], "INDEX", strconv.Itoa(s.Index("up-eth0")))
				}
				return err
			})
			pod.IP(t, append([]string{"link del up-eth0"}, lines...)...)
			links := func() string { return pod.Run(t, "ip", "-o", "addr") }
			before := links()
			pod.In(t, func() error {
				expectWords(t, ApplyAll(t.Context(), dir, Options{}, "eth0"), []string{"the pod interface eth0", "run restore", "recreate the pod"})
				return nil
			})
			if d := podtest.Diff(before, links()); d != "" {
				t.Errorf("a refused prepare changed:\n%s", d)
			}
		})
	}
}

// Whatever address somebody put on the placeholder, a restore that fails leaves it
// there.
func TestUndoneRestoreKeepsThePlaceholdersAddresses(t *testing.T) {
	t.Parallel()
	b := newBench(t, podtest.BridgeDual, DefaultDatapath)
	b.must(b.ops(false))
	b.pod.IP(t, "addr add fd00:42::7/64 dev eth0 nodad", "addr add 10.42.0.7/24 dev eth0 label eth0:x")
	before := b.snapshot()
	ops := b.ops(true)
	if err := b.execute(append(slices.Clip(ops), failing{})); err == nil || strings.Contains(err.Error(), "undo") {
		t.Errorf("a restore that fails: %v", err)
	}
	if d := podtest.Diff(unordered(before), unordered(b.snapshot())); d != "" {
		t.Errorf("after undoing:\n%s", d)
	}
}
