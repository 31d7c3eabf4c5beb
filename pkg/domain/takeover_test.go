//go:build linux && cgo && libvirt_dlopen

package domain

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"libvirt.org/go/libvirt"
)

// A domain whose program has ended without ending it is taken over, with its end, by a
// program that has the same taps.
func TestTakeOver(t *testing.T) {
	t.Parallel()
	keep := testConnect(t) // or the simulated hypervisor ends with its last connection
	xml := []byte(strings.Replace(fmt.Sprintf(testXML, "outlives"), "</domain>",
		"<devices><interface type='ethernet'><target dev='tap-eth0' managed='no'/></interface></devices></domain>", 1))
	if _, err := TakeOver(t.Context(), nil, testURI, xml, "tap-eth0"); !errors.Is(err, ErrNotRunning) {
		t.Errorf("a domain that is not there: %v", err)
	}
	vm, err := Start(t.Context(), nil, testURI, xml)
	if err != nil {
		t.Fatal(err)
	}
	if err := vm.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := Start(t.Context(), nil, testURI, xml); !errors.Is(err, ErrRunning) {
		t.Errorf("start beside it: %v", err)
	}
	if _, err := TakeOver(t.Context(), nil, testURI, xml, "tap-eth0", "tap-net1"); !errors.Is(err, ErrNotRunning) || !strings.Contains(err.Error(), "tap-net1") {
		t.Errorf("with a tap more: %v", err)
	}
	if n := domains(t, keep, "outlives"); n != 1 {
		t.Fatalf("there are %d domains of that name", n)
	}
	vm, err = TakeOver(t.Context(), nil, testURI, xml, "tap-eth0")
	if err != nil {
		t.Fatal(err)
	}
	defer vm.Close()
	if vm.uuid == "" || vm.Name() != "outlives" {
		t.Errorf("took over %q, %q", vm.Name(), vm.uuid)
	}
	dom, err := keep.LookupDomainByName("outlives")
	if err != nil {
		t.Fatal(err)
	}
	defer dom.Free()
	if err := dom.DestroyFlags(libvirt.DOMAIN_DESTROY_DEFAULT); err != nil {
		t.Fatal(err)
	}
	stop, is := errors.AsType[*StopError](vm.Wait(bounded(t)))
	if !is || stop.Reason != ReasonDestroyed {
		t.Errorf("it ended by %v", stop)
	}
	if _, err := TakeOver(t.Context(), nil, testURI, xml, "tap-eth0"); !errors.Is(err, ErrNotRunning) {
		t.Errorf("after its end: %v", err)
	}
}
