//go:build linux && cgo && libvirt_dlopen

package domain

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"libvirt.org/go/libvirt"
)

// testURI is libvirt's simulated hypervisor: one per process, for as long as a
// connection to it is open.
const testURI = "test:///default"

const testXML = `<domain type='test'>
  <name>%s</name>
  <memory>8192</memory>
  <os><type>hvm</type></os>
</domain>`

// bounded returns a context for what should not take long.
func bounded(t *testing.T) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	t.Cleanup(cancel)
	return ctx
}

// testConnect opens a second connection, to look at or change what a VM does.
func testConnect(t *testing.T) *libvirt.Connect {
	t.Helper()
	if err := runEvents(); err != nil {
		t.Fatal(err)
	}
	c, err := libvirt.NewConnect(testURI)
	if err != nil {
		t.Fatal(err)
	}
	// The simulated hypervisor may tell nobody anything any more, if an event came just when the last
	// of those who listen left (virObjectEventStateCleanupTimer): so somebody always listens.
	id, err := c.DomainEventLifecycleRegister(nil, func(*libvirt.Connect, *libvirt.Domain, *libvirt.DomainEventLifecycle) {})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		err := c.DomainEventDeregister(id)
		_, closeErr := c.Close()
		if err := errors.Join(err, closeErr); err != nil {
			t.Error(err)
		}
	})
	return c
}

// domains returns how many domains of that name the connection knows.
func domains(t *testing.T, c *libvirt.Connect, name string) int {
	t.Helper()
	all, err := c.ListAllDomains(0)
	if err != nil {
		t.Fatal(err)
	}
	count := 0
	for _, d := range all {
		if n, err := d.GetName(); err == nil && n == name {
			count++
		}
		d.Free()
	}
	return count
}

func startTest(t *testing.T) *VM {
	t.Helper()
	vm, err := Start(t.Context(), nil, testURI, fmt.Appendf(nil, testXML, t.Name()))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := vm.Close(); err != nil {
			t.Error(err)
		}
	})
	return vm
}

// libvirt's own schema takes what Attach writes.
func TestAttachSchema(t *testing.T) {
	c := testConnect(t)
	for _, g := range goldens {
		t.Run(g.name, func(t *testing.T) {
			xml := string(readFile(t, g.name+".golden.xml"))
			xml = strings.NewReplacer("<domain type='kvm'", "<domain type='test'", `<domain type="kvm"`, `<domain type="test"`).Replace(xml)
			flags := libvirt.DOMAIN_DEFINE_VALIDATE
			if strings.Contains(xml, "<unknown") {
				flags = 0
			}
			d, err := c.DomainDefineXMLFlags(xml, flags)
			if err != nil {
				t.Fatal(err)
			}
			d.Undefine()
			d.Free()
		})
	}
}

// A name is what libvirt makes of it, whatever divides its text: else the events
// would be another's, and the end of the domain not be noticed.
func TestNameInParts(t *testing.T) {
	for in, want := range map[string]string{
		"<!-- a comment -->first": "first", "sec<!-- or two -->ond": "second",
		"<![CDATA[th]]>ir<?some d?>d": "third", "fo<x>ur</x>th": "fourth",
	} {
		vm, err := Start(t.Context(), nil, testURI, fmt.Appendf(nil, testXML, in))
		if err != nil {
			t.Errorf("%s: %v", in, err)
			continue
		}
		if name, err := vm.dom.GetName(); err != nil || name != want || vm.Name() != want {
			t.Errorf("%s: libvirt says %s (%v), the VM %s", in, name, err, vm.Name())
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		if err := errors.Join(vm.Shutdown(ctx), vm.Wait(ctx), vm.Close()); err != nil {
			t.Errorf("%s: %v", in, err)
		}
		cancel()
	}
}

func TestShutdown(t *testing.T) {
	c := testConnect(t)
	vm := startTest(t)
	if vm.Name() != t.Name() || len(vm.uuid) != 36 || vm.Embedded() {
		t.Errorf("name %q, UUID %q, embedded: %v", vm.Name(), vm.uuid, vm.Embedded())
	}
	if domains(t, c, t.Name()) != 1 {
		t.Error("libvirt does not know the domain")
	}
	waited := make(chan error)
	go func() { waited <- vm.Wait(context.Background()) }()
	if err := vm.Shutdown(bounded(t)); err != nil {
		t.Fatal(err)
	}
	if err := <-waited; err != nil {
		t.Errorf("Wait: %v", err)
	}
	if domains(t, c, t.Name()) != 0 {
		t.Error("the domain is left behind")
	}
	if err := errors.Join(vm.Shutdown(bounded(t)), vm.Close(), vm.Close()); err != nil {
		t.Errorf("again: %v", err)
	}
}

func TestWaitDestroyed(t *testing.T) {
	c := testConnect(t)
	vm := startTest(t)
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	if err := vm.Wait(ctx); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("while it runs: %v", err)
	}
	d, err := c.LookupDomainByName(t.Name())
	if err != nil {
		t.Fatal(err)
	}
	defer d.Free()
	if err := d.Destroy(); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		var stop *StopError
		if err := vm.Wait(bounded(t)); !errors.As(err, &stop) || stop.Reason != ReasonDestroyed || stop.Domain != t.Name() {
			t.Errorf("got %v, want destroyed", err)
		}
	}
}

// A domain that is paused is resumed, to shut down.
func TestShutdownPaused(t *testing.T) {
	c := testConnect(t)
	vm := startTest(t)
	log := &bytes.Buffer{}
	vm.log = slog.New(slog.NewTextHandler(log, nil))
	d, err := c.LookupDomainByName(t.Name())
	if err != nil {
		t.Fatal(err)
	}
	defer d.Free()
	if err := d.Suspend(); err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(vm.Shutdown(bounded(t)), vm.Wait(bounded(t))); err != nil {
		t.Error(err)
	}
	if text := log.String(); !strings.Contains(text, "resuming the domain") || !strings.Contains(text, "paused=user") {
		t.Errorf("the log is\n%s", text)
	}
}

// A second signal: no time for the guest at all.
func TestShutdownAtOnce(t *testing.T) {
	vm := startTest(t)
	log := &bytes.Buffer{}
	vm.log = slog.New(slog.NewTextHandler(log, nil))
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := vm.Shutdown(ctx); err != nil {
		t.Fatal(err)
	}
	if !vm.hasStopped() {
		t.Error("Shutdown returned before the domain stopped")
	}
	if text := log.String(); !strings.Contains(text, "was not asked to shut down") || strings.Contains(text, "and has not") {
		t.Errorf("the log is untrue:\n%s", text)
	}
}

// A VM that was closed too early can neither wait nor be shut down, and says so.
func TestCloseRunning(t *testing.T) {
	c := testConnect(t)
	vm := startTest(t)
	if err := vm.Close(); err != nil {
		t.Fatal(err)
	}
	var stop *StopError
	if err := vm.Wait(bounded(t)); err == nil || errors.As(err, &stop) {
		t.Errorf("Wait: %v", err)
	}
	if err := vm.Shutdown(bounded(t)); err == nil {
		t.Error("Shutdown claims to have worked")
	}
	d, err := c.LookupDomainByName(t.Name())
	if err != nil {
		t.Fatalf("Close ended the domain: %v", err)
	}
	defer d.Free()
	if err := d.Destroy(); err != nil {
		t.Error(err)
	}
}

// A definition of the user's is neither changed nor removed.
func TestStartDefined(t *testing.T) {
	c := testConnect(t)
	const uuid = "9c3a1a32-5d1c-4a0c-8bb7-0a3f6d1e0001"
	own := fmt.Sprintf("<domain type='test'><name>%s</name><uuid>%s</uuid><memory>4096</memory><os><type>hvm</type></os></domain>", t.Name(), uuid)
	d, err := c.DomainDefineXML(own)
	if err != nil {
		t.Fatal(err)
	}
	defer d.Free()
	defer d.Undefine()
	vm, err := Start(t.Context(), nil, testURI, []byte(strings.Replace(own, "4096", "8192", 1)))
	if err != nil {
		t.Fatal(err)
	}
	defer vm.Close()
	if vm.uuid != uuid {
		t.Errorf("UUID %s, want %s", vm.uuid, uuid)
	}
	if err := vm.Shutdown(bounded(t)); err != nil {
		t.Fatal(err)
	}
	xml, err := d.GetXMLDesc(libvirt.DOMAIN_XML_INACTIVE)
	if err != nil || !strings.Contains(xml, "4096</memory>") {
		t.Errorf("the definition is now: %v\n%s", err, xml)
	}
}

func TestStartErrors(t *testing.T) {
	c := testConnect(t)
	running := startTest(t)
	const refused = "<domain type='test'><name>refused</name><memory>1</memory><os><type>no-such</type></os></domain>"
	for _, tt := range []struct {
		name, uri, xml, want string
	}{
		{"not a domain", testURI, "<network/>", "<network>, not <domain>"},
		{"no name", testURI, "<domain/>", "has no <name>"},
		{"refused XML", testURI, refused, "start domain refused on test:///default: "},
		{"running", testURI, fmt.Sprintf(testXML, running.Name()), "start domain TestStartErrors on test:///default: a domain of that name is running: end it with virsh -c 'test:///default' destroy TestStartErrors"},
		{"no such driver", "nosuch:///system", fmt.Sprintf(testXML, "x"), "connect to nosuch:///system: "},
		{"no libvirtd", "qemu+unix:///system?socket=" + t.TempDir() + "/none", fmt.Sprintf(testXML, "x"), "is libvirtd running in this pod?"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			vm, err := Start(t.Context(), nil, tt.uri, []byte(tt.xml))
			if vm != nil || err == nil || !strings.Contains(err.Error(), tt.want) || strings.Contains(err.Error(), "virError") {
				t.Errorf("got %v, want %q in it", err, tt.want)
			}
			t.Log(err)
		})
	}
	if domains(t, c, "refused") != 0 || domains(t, c, "x") != 0 || domains(t, c, running.Name()) != 1 {
		t.Error("an error left a domain behind, or ended one")
	}
}

// A libvirtd which takes the connection and never says a word.
func TestStartUnresponsive(t *testing.T) {
	path := filepath.Join(t.TempDir(), "sock")
	l, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	accepted := make(chan net.Conn, 1)
	go func() {
		if c, err := l.Accept(); err == nil {
			accepted <- c
		}
	}()
	ctx, cancel := context.WithCancel(t.Context())
	failed := make(chan error)
	uri := "qemu+unix:///system?socket=" + path
	go func() {
		_, err := Start(ctx, nil, uri, fmt.Appendf(nil, testXML, "x"))
		failed <- err
	}()
	conn := <-accepted // libvirt has connected and now waits for an answer
	cancel()
	err = <-failed
	if !errors.Is(err, context.Canceled) || !strings.Contains(err.Error(), "connect to "+uri+": no answer from libvirt") {
		t.Errorf("got %v", err)
	}
	conn.Close() // lets the thread left behind end
	l.Close()
}

// That another domain of the name ends just before is no end of ours.
func TestStartAfterAnother(t *testing.T) {
	c := testConnect(t)
	xml := fmt.Sprintf(testXML, t.Name())
	another, err := c.DomainCreateXML(xml, libvirt.DOMAIN_NONE)
	if err != nil {
		t.Fatal(err)
	}
	defer another.Free()
	vm, err := newVM(nil, testURI, []byte(xml))
	if err != nil {
		t.Fatal(err)
	}
	if err := vm.connect(t.Context()); err != nil {
		t.Fatal(err)
	}
	defer vm.Close()
	if err := another.Destroy(); err != nil {
		t.Fatal(err)
	}
	if err := vm.start(t.Context(), xml); err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(vm.Shutdown(bounded(t)), vm.Wait(bounded(t))); err != nil {
		t.Errorf("not shut down, but: %v", err)
	}
	if domains(t, c, t.Name()) != 0 {
		t.Error("the domain is left behind")
	}
}

// What libvirt starts for a caller who has given up is ended again.
func TestStartGivenUp(t *testing.T) {
	c := testConnect(t)
	xml := fmt.Sprintf(testXML, t.Name())
	vm, err := newVM(nil, testURI, []byte(xml))
	if err != nil {
		t.Fatal(err)
	}
	if err := vm.connect(t.Context()); err != nil {
		t.Fatal(err)
	}
	defer vm.Close()
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := vm.start(ctx, xml); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
	var stop *StopError
	if err := vm.Wait(bounded(t)); !errors.As(err, &stop) || stop.Reason != ReasonDestroyed {
		t.Errorf("the domain: %v", err)
	}
	if domains(t, c, t.Name()) != 0 {
		t.Error("the domain is left behind")
	}
}
