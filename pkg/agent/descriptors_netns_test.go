package agent_test

import (
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/virt-launcher-net/virt-launcher-net/internal/podtest"
	"github.com/virt-launcher-net/virt-launcher-net/pkg/agent"
)

// Whatever an agent can't open while it has no descriptors left, once it has some the NIC is
// served and repaired, and the pod answered, as any other.
func TestFewDescriptors(t *testing.T) {
	t.Parallel()
	n := newNode(t)
	p := n.startProcess(t)
	n.until(t, "it answers", func(agent.Status) bool { return true })
	v := n.newVM(t, "vm")
	planned := podtest.TakeSnapshot(t, v.NS)
	limit := func(soft func(was uint64) uint64) (was uint64) {
		var l unix.Rlimit
		err := unix.Prlimit(p.cmd.Process.Pid, unix.RLIMIT_NOFILE, nil, &l)
		if err == nil {
			was, l.Cur = l.Cur, soft(l.Cur)
			err = unix.Prlimit(p.cmd.Process.Pid, unix.RLIMIT_NOFILE, &l, nil)
		}
		if err != nil {
			t.Fatal(err)
		}
		return was
	}
	for more := range 20 { // a NIC takes about ten
		open, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", p.cmd.Process.Pid))
		if err != nil {
			t.Fatal(err)
		}
		many := limit(func(uint64) uint64 { return uint64(len(open) + more) })
		attached := make(chan error, 1)
		go func() { attached <- n.client().Attach(t.Context(), v.ContainerID, "eth0") }()
		var attachErr error
		select {
		case attachErr = <-attached:
			limit(func(uint64) uint64 { return many })
		case <-time.After(time.Second): // it can't even accept the connection
			limit(func(uint64) uint64 { return many })
			attachErr = <-attached
		}
		n.until(t, "it is ready", func(s agent.Status) bool { return ready(s) == 1 })
		if status, err := ask(t, v); err != nil || !status.Ready || status.Of("eth0").Unwatched != "" {
			t.Errorf("with %d descriptors more (%v) the pod is told %+v, %v", more, attachErr, status, err)
		}
		v.Run(t, "nft", "flush", "ruleset")
		n.log.Until(t, "the tables are repaired", func(string) bool { return podtest.Diff(planned, podtest.TakeSnapshot(t, v.NS)) == "" })
		if err := n.client().Detach(t.Context(), v.ContainerID, "eth0"); err != nil {
			t.Fatal(err)
		}
	}
	for line := range strings.Lines(p.log.String()) {
		if !strings.HasPrefix(line, "time=") {
			t.Errorf("it writes beside its log: %s", line)
		}
	}
}
