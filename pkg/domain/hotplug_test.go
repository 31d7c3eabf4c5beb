//go:build linux && cgo && libvirt_dlopen

package domain

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/virt-launcher-net/virt-launcher-net/pkg/mac"
)

// watchedContext tells when its end is first waited for.
type watchedContext struct {
	context.Context

	once  sync.Once
	asked chan struct{}
}

func (c *watchedContext) Done() <-chan struct{} {
	c.once.Do(func() { close(c.asked) })
	return c.Context.Done()
}

// A NIC that libvirt attaches though the caller has given up is the domain's: this guest,
// a firmware, never releases one.
func TestPlugGivenUp(t *testing.T) {
	if !inChild(t) {
		return
	}
	if err := unix.Mount("none", "/etc/libvirt", "tmpfs", 0, ""); err != nil {
		t.Fatal(err)
	}
	writeFile(t, "/etc/libvirt/qemu.conf", qemuConf)
	if err := os.MkdirAll("/var/log/libvirt", 0o755); err != nil {
		t.Fatal(err)
	}
	var process int
	var socket string
	inPod(t, []string{"tap-eth0", "tap-net1"}, func() { process, socket = startLibvirtd(t) })

	xml, err := Attach([]byte(strings.Replace(firmwareXML, "q35", "pc", 1)), eth0)
	if err != nil {
		t.Fatal(err)
	}
	vm, err := Start(t.Context(), nil, "qemu+unix:///system"+socket, xml)
	if err != nil {
		log, _ := os.ReadFile(filepath.Join(filepath.Dir(strings.TrimPrefix(socket, "?socket=")), "log"))
		t.Fatalf("%v\n%s", err, log)
	}
	defer vm.Close()
	ended, end := context.WithCancel(t.Context())
	defer func() {
		end()
		if err := vm.Shutdown(ended); err != nil {
			t.Error(err)
		}
	}()

	net1 := NIC{Interface: "net1", Tap: "tap-net1", MAC: mac.Addr{2, 0, 0, 0, 0, 9}}
	if err := unix.PidfdSendSignal(process, unix.SIGSTOP, nil, 0); err != nil {
		t.Fatal(err)
	}
	ctx, giveUp := context.WithCancel(t.Context())
	watched := &watchedContext{Context: ctx, asked: make(chan struct{})}
	plugged := make(chan error)
	go func() { plugged <- vm.Plug(watched, net1) }()
	<-watched.asked
	giveUp()
	if err := unix.PidfdSendSignal(process, unix.SIGCONT, nil, 0); err != nil {
		t.Fatal(err)
	}
	err = <-plugged
	if alias, aliasErr := vm.aliasOf(bounded(t), net1.withDefaults()); err != nil || aliasErr != nil || alias != "ua-net1" {
		t.Errorf("the domain's NIC has the alias %q, %v; Plug says %v", alias, aliasErr, err)
	}
	renamed := NIC{Interface: "net1", Tap: "tap-net1", Alias: "ua-other"}
	if alias, err := vm.aliasOf(bounded(t), renamed); err != nil || alias != "ua-net1" {
		t.Errorf("by its tap the NIC has the alias %q, %v", alias, err)
	}
	renamed.Tap = "tap-net2"
	if alias, err := vm.aliasOf(bounded(t), renamed); err != nil || alias != "" {
		t.Errorf("a NIC that is not there has the alias %q, %v", alias, err)
	}
}
