//go:build linux && cgo && libvirt_dlopen

package domain

import (
	"context"
	"fmt"
	"strings"

	"libvirt.org/go/libvirt"
)

// Plug gives the running domain one more NIC, whose tap must exist, and returns when
// the domain has it: what its guest makes of it is the guest's. Only the running domain
// is changed, and no definition that libvirt may have of it. On error the domain does not
// have the NIC, unless the error wraps [ErrNoAnswer]: then it may get it yet. Once libvirt was
// asked, it is the domain's also if ctx ends before the answer: only the guest could release
// it again.
func (v *VM) Plug(ctx context.Context, n NIC) error {
	n = n.withDefaults()
	xml, err := Interfaces(n)
	if err != nil {
		return err
	}
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	longer, cancel := outlive(ctx, undoTime) // so that it is known what came of it
	defer cancel()
	err = v.call(longer, func(d *libvirt.Domain) error {
		return d.AttachDeviceFlags(string(xml), libvirt.DOMAIN_DEVICE_MODIFY_LIVE)
	})
	if err == nil {
		v.log.Info("NIC attached to the domain", "domain", v.name, "interface", n.Interface, "alias", n.Alias)
		return nil
	}
	return fmt.Errorf("attach NIC %s to domain %s: %w%s", n, v.name, err, v.hintFor(err, n))
}

// hintFor is the way out of what libvirt says; empty: there is none but its words.
func (v *VM) hintFor(err error, n NIC) string {
	if strings.Contains(err.Error(), "non unique alias") {
		return fmt.Sprintf(": another device of the domain has it; virsh -c '%s' detach-device-alias %s %s takes that from it", v.uri, v.name, n.Alias)
	}
	if strings.Contains(err.Error(), "No more available PCI slots") {
		return ": a machine of type q35 takes a NIC while it runs only in a free pcie-root-port: " +
			"start it with one more <controller type='pci' model='pcie-root-port'/> in its <devices> for each NIC to be plugged"
	}
	return ""
}

// Unplug asks the guest to release a NIC, which is the domain's interface on that tap,
// or else of that alias, and returns when the domain does not have it any more, nor its
// tap open: at once if it has none such. The guest has until ctx ends; the error wraps
// [ErrNotReleased] if it refuses or does not answer. Then the domain has the NIC. It may
// still release it later.
func (v *VM) Unplug(ctx context.Context, n NIC) error {
	n = n.withDefaults()
	if err := v.unplug(ctx, n); err != nil && !v.hasStopped() {
		return fmt.Errorf("detach NIC %s from domain %s: %w", n, v.name, err)
	}
	v.log.Info("NIC detached from the domain", "domain", v.name, "interface", n.Interface, "alias", n.Alias)
	return nil
}

func (v *VM) unplug(ctx context.Context, n NIC) error {
	v.unplugging.Lock()
	defer v.unplugging.Unlock()
	alias, err := v.aliasOf(ctx, n)
	if err != nil || alias == "" {
		return err
	}
	removals := v.expectRemoval(alias)
	defer v.expectRemoval("")
	err = v.call(ctx, func(d *libvirt.Domain) error { return d.DetachDeviceAlias(alias, libvirt.DOMAIN_DEVICE_MODIFY_LIVE) })
	if err != nil && !strings.Contains(err.Error(), "already in the process of unplug") { // asked before, it may do so now
		if left, goneErr := v.aliasOf(ctx, n); goneErr == nil && left == "" { // asked before, it has done so just now
			return nil
		}
		return err
	}
	select {
	case removed := <-removals:
		if removed {
			return nil
		}
		return fmt.Errorf("%w: it refuses", ErrNotReleased)
	case <-v.stopped:
		return nil
	case <-v.disconnected:
		return ErrDisconnected
	case <-ctx.Done():
	}
	late, cancel := context.WithTimeout(context.WithoutCancel(ctx), undoTime)
	defer cancel()
	if left, err := v.aliasOf(late, n); err == nil && left == "" {
		return nil
	}
	return fmt.Errorf("%w (%w): it has to run, with hot-unplug by ACPI or PCIe; it may release the NIC later", ErrNotReleased, context.Cause(ctx))
}

// aliasOf is the alias of the running domain's interface that is the NIC: whoever has
// attached it anew may have given it another. Empty: there is none.
func (v *VM) aliasOf(ctx context.Context, n NIC) (alias string, err error) {
	var xml string
	err = v.call(ctx, func(d *libvirt.Domain) (err error) {
		xml, err = d.GetXMLDesc(0)
		return err
	})
	if err != nil {
		return "", err
	}
	doc, err := parse([]byte(xml))
	if err != nil {
		return "", err
	}
	for _, iface := range find(doc.Root(), "devices", "interface") {
		switch is := value(iface, "name", "alias"); {
		case value(iface, "dev", "target") == n.Tap:
			return is, nil
		case is == n.Alias:
			alias = is
		}
	}
	return alias, nil
}

// expectRemoval returns what is told whether the device of that alias was removed, or
// its guest refuses that; empty: nothing is expected any more.
func (v *VM) expectRemoval(alias string) <-chan bool {
	v.removalsLock.Lock()
	defer v.removalsLock.Unlock()
	v.removing, v.removals = alias, make(chan bool, 1)
	return v.removals
}

// onRemoval is called by the event loop when a device of any domain was removed, or
// not.
func (v *VM) onRemoval(dom *libvirt.Domain, alias string, removed bool) {
	if name, err := dom.GetName(); err != nil || name != v.name {
		return
	}
	v.removalsLock.Lock()
	defer v.removalsLock.Unlock()
	if alias != v.removing {
		return
	}
	select {
	case v.removals <- removed:
	default: // it was told already
	}
}
