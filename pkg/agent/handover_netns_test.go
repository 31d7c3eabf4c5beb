package agent_test

import (
	"context"
	"net/netip"
	"os"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/virt-launcher-net/virt-launcher-net/internal/attachment"
	"github.com/virt-launcher-net/virt-launcher-net/internal/podtest"
	"github.com/virt-launcher-net/virt-launcher-net/pkg/agent"
	"github.com/virt-launcher-net/virt-launcher-net/pkg/control"
	"github.com/virt-launcher-net/virt-launcher-net/pkg/prestart"
)

// A container of the pod, which can read no record, gets the files for its launcher from
// what the agent says there: the same as who prepares writes them.
func TestHandOver(t *testing.T) {
	t.Parallel()
	n := newNode(t)
	pod := podtest.NewPod(t, podtest.Calico)
	options := map[string]string{"model": `"e1000e"`, "mtu": "1400"}
	v := n.prepare(t, pod, n.mount(t, pod.NS, "vm1"), "eth0", options)
	n.start(t)
	n.until(t, "the pod is served", func(s agent.Status) bool { return ready(s) == 1 })

	o, err := v.Settings()
	if err != nil {
		t.Fatal(err)
	}
	prepared, handed := t.TempDir(), t.TempDir()
	if _, err := (prestart.Hook{
		Netns: v.Netns, StateDir: attachment.Dir(n.stateDir, v.ContainerID), Interfaces: []string{"eth0"}, Network: o.Network,
		Model: o.Model, NoIdentity: true, OutputDir: prepared,
	}).Prepare(t.Context()); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), podtest.Patience)
	defer cancel()
	pod.In(t, func() error {
		status, err := control.Client{StateDir: t.TempDir()}.Wait(ctx, control.ForNetwork)
		if err != nil {
			return err
		}
		if err := (prestart.Hook{OutputDir: handed}).HandOver(status); err != nil {
			return err
		}
		said, err := prestart.Hook{StateDir: t.TempDir()}.Status(ctx)
		if !said.Prepared || len(said.Unrecorded) > 0 || len(said.Interfaces) != 1 || said.Interfaces[0].MTU != 1400 || said.Interfaces[0].Guest != nil {
			t.Errorf("the pod's status is %+v, %v", said, err)
		}
		return err
	})
	want, got := files(t, prepared), files(t, handed)
	nics, err := prestart.ParseNICs([]byte(want[prestart.NICsFile]))
	if err != nil {
		t.Fatal(err)
	}
	gotNICs, err := prestart.ParseNICs([]byte(got[prestart.NICsFile]))
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(nics, gotNICs, cmpopts.EquateComparable(netip.Addr{}, netip.Prefix{})); diff != "" {
		t.Error(diff)
	}
	delete(want, prestart.NICsFile) // it has the datapath, too
	delete(got, prestart.NICsFile)
	if diff := cmp.Diff(want, got); diff != "" || len(want) < 2 {
		t.Errorf("%d files, %s", len(want), diff)
	}
}

func files(t *testing.T, dir string) map[string]string {
	t.Helper()
	all := map[string]string{}
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		text, err := os.ReadFile(filepath.Join(dir, e.Name()))
		if err != nil {
			t.Fatal(err)
		}
		all[e.Name()] = string(text)
	}
	return all
}

// A server of another version, which says less, is told from one that serves nothing.
func TestHandOverOfAnother(t *testing.T) {
	err := prestart.Hook{OutputDir: t.TempDir()}.HandOver(control.Status{Interfaces: []control.Served{{Name: "eth0"}}})
	if err == nil {
		t.Error("it is handed over")
	}
}
