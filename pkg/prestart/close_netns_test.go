//go:build linux && cgo && libvirt_dlopen

package prestart_test

import (
	"context"
	"errors"
	"testing"

	"github.com/virt-launcher-net/virt-launcher-net/internal/podtest"
	"github.com/virt-launcher-net/virt-launcher-net/pkg/check"
	"github.com/virt-launcher-net/virt-launcher-net/pkg/domain"
	"github.com/virt-launcher-net/virt-launcher-net/pkg/prestart"
)

// A launcher closes the session when its own context is over. The guest is asked
// to shut down all the same, which libvirt's simulated one does.
func TestCloseWithContextThatIsOver(t *testing.T) {
	t.Parallel()
	pod := podtest.NewPod(t, podtest.Flannel)
	hook := prestart.Hook{
		Netns: pod.Path(), StateDir: t.TempDir(), SkipCheck: true,
		Domain: &prestart.Domain{
			URI: "test:///default",
			XML: []byte("<domain type='test'><name>close</name><memory>8192</memory><os><type>hvm</type></os></domain>"),
		},
	}
	ctx, cancel := context.WithCancel(t.Context())
	session, err := hook.Run(ctx)
	if err != nil {
		t.Fatal(err)
	}
	cancel()
	if err := session.Close(ctx); err != nil {
		t.Error(err)
	}
	if err := session.Wait(t.Context()); err != nil {
		t.Errorf("the guest did not shut down: %v", err)
	}
}

// Who asks for the status while the domain starts gets it, and later the domain's
// name. With -race this shows what two goroutines share.
func TestStatusWhileDomainStarts(t *testing.T) {
	t.Parallel()
	pod := podtest.NewPod(t, podtest.Flannel)
	hook := prestart.Hook{
		Netns: pod.Path(), StateDir: t.TempDir(), SkipCheck: true,
		Domain: &prestart.Domain{
			URI: "test:///default",
			XML: []byte("<domain type='test'><name>slow</name><memory>8192</memory><os><type>hvm</type></os></domain>"),
		},
	}
	named := make(chan error, 1)
	go func() {
		for {
			status, err := hook.Status(t.Context())
			if err != nil || status.Server.Alive && status.Server.Domain == "slow" {
				named <- err
				return
			}
		}
	}()
	session := run(t, hook)
	if err := <-named; err != nil {
		t.Error(err)
	}
	if name := session.Status().Domain; name != "slow" {
		t.Errorf("the domain is %q", name)
	}
}

// A VM that has outlived its run, as one of a libvirtd does, is served again, and is the
// session's: it ends with it. One that something else runs is not harmed: the error says so.
func TestDomainOutlivesRun(t *testing.T) {
	t.Parallel()
	pod := podtest.NewPod(t, podtest.Flannel)
	h := newHook(t, pod)
	if err := run(t, h).Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	h.Domain = &prestart.Domain{
		URI: "test:///default",
		XML: []byte("<domain type='test'><name>again</name><memory>8192</memory><os><type>hvm</type></os><devices/></domain>"),
	}
	xml, err := h.Attach(t.Context(), h.Domain.XML)
	if err != nil {
		t.Fatal(err)
	}
	guest := podtest.NewGuest(t, pod.NS, "tap-eth0", pod.MAC)
	before := podtest.TakeSnapshot(t, pod.NS)
	if _, err := h.Run(t.Context()); !errors.Is(err, check.ErrTapInUse) || !errors.Is(err, domain.ErrNotRunning) {
		t.Errorf("run beside what is no domain: %v", err)
	}
	if d := podtest.Diff(before, podtest.TakeSnapshot(t, pod.NS)); d != "" {
		t.Errorf("run beside the VM changed the pod:\n%s", d)
	}
	for _, skipCheck := range []bool{false, true} {
		t.Logf("no check: %v", skipCheck)
		h.SkipCheck = skipCheck
		// As the run before has started it.
		vm, err := domain.Start(t.Context(), nil, h.Domain.URI, xml)
		if err != nil {
			t.Fatal(err)
		}
		defer vm.Close()
		session, err := h.Run(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		defer session.Close(context.WithoutCancel(t.Context()))
		if _, err := guest.Udhcpc(t.Context()); err != nil {
			t.Error(err)
		}
		if err := session.Close(t.Context()); err != nil {
			t.Error(err)
		}
		if err := vm.Wait(t.Context()); err != nil {
			t.Errorf("the VM's end: %v", err)
		}
	}
}
