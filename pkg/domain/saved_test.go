//go:build linux && cgo && libvirt_dlopen

package domain

import (
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"testing"

	"libvirt.org/go/libvirt"
)

// lines are what is written, a line each.
type lines chan string

func (l lines) Write(b []byte) (int, error) {
	l <- string(b)
	return len(b), nil
}

// A domain that is reverted to a snapshot of when it ran is stopped and started by libvirt:
// it has not ended.
func TestRevertedToSnapshot(t *testing.T) {
	t.Parallel()
	c := testConnect(t)
	log := make(lines, 10)
	vm, err := Start(t.Context(), slog.New(slog.NewTextHandler(log, nil)), testURI, fmt.Appendf(nil, testXML, t.Name()))
	if err != nil {
		t.Fatal(err)
	}
	defer vm.Close()
	dom, err := c.LookupDomainByName(t.Name())
	if err != nil {
		t.Fatal(err)
	}
	defer dom.Free()
	snapshot, err := dom.CreateSnapshotXML("<domainsnapshot><name>now</name></domainsnapshot>", 0)
	if err != nil {
		t.Fatal(err)
	}
	defer snapshot.Free()
	xml, err := snapshot.GetXMLDesc(0)
	if err != nil {
		t.Fatal(err)
	}
	// With another size the simulated hypervisor starts the domain anew, as QEMU's driver does at each time.
	xml = strings.NewReplacer("<name>now</name>", "<name>smaller</name>", ">8192</", ">4096</").Replace(xml)
	other, err := dom.CreateSnapshotXML(xml, libvirt.DOMAIN_SNAPSHOT_CREATE_REDEFINE)
	if err != nil {
		t.Fatal(err)
	}
	defer other.Free()
	if err := other.RevertToSnapshot(libvirt.DOMAIN_SNAPSHOT_REVERT_FORCE); err != nil {
		t.Fatal(err)
	}
	for line := ""; !strings.Contains(line, "runs on"); {
		select {
		case line = <-log:
		case <-vm.stopped:
			t.Fatalf("it is taken for stopped: %v", vm.Wait(t.Context()))
		}
	}
	if err := vm.Shutdown(bounded(t)); err != nil {
		t.Fatal(err)
	}
	if err := vm.Wait(bounded(t)); err != nil {
		t.Errorf("after it was reverted, and then shut down: %v", err)
	}
	if domains(t, c, t.Name()) != 0 {
		t.Error("the domain runs on")
	}
}

// A domain whose state libvirt has saved is not started anew: what is saved would be
// resumed later, on disks that have changed.
func TestStartSaved(t *testing.T) {
	t.Parallel()
	c := testConnect(t)
	const uuid = "9c3a1a32-5d1c-4a0c-8bb7-0a3f6d1e0002"
	xml := []byte(strings.Replace(fmt.Sprintf(testXML, t.Name()), "</name>", "</name><uuid>"+uuid+"</uuid>", 1))
	dom, err := c.DomainDefineXML(string(xml))
	if err != nil {
		t.Fatal(err)
	}
	defer dom.Free()
	defer dom.UndefineFlags(libvirt.DOMAIN_UNDEFINE_MANAGED_SAVE)
	if err := errors.Join(dom.Create(), dom.ManagedSave(0)); err != nil {
		t.Fatal(err)
	}
	vm, err := Start(t.Context(), nil, testURI, xml)
	if err == nil {
		vm.Close()
		t.Fatal("it was started")
	}
	for _, want := range []string{"start " + t.Name(), "managedsave-remove " + t.Name()} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("%v: it does not say %q", err, want)
		}
	}
	if saved, err := dom.HasManagedSaveImage(0); err != nil || !saved {
		t.Errorf("what was saved is gone: %v", err)
	}
}
