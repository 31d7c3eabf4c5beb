package domain

import (
	"cmp"
	"fmt"
	"slices"

	"github.com/virt-launcher-net/virt-launcher-net/pkg/mac"
)

// Attach returns the domain's XML with each of the NICs in it, as an interface
// of type ethernet on the NIC's tap, which libvirt is told to leave alone
// (managed='no').
//
// An interface of the domain with the alias, the tap or the MAC of a NIC becomes
// that NIC, in its place. What says how the guest sees it stays: boot order,
// PCI address, driver, bandwidth, link state and whatever else NIC does not
// describe. What says how the host connects it goes, as source, virtualport, vlan,
// script, addresses, coalesce and filterref, which libvirt would refuse on such
// an interface or use to undo what the pod was prepared with. A NIC without such
// an interface comes after the last one.
//
// The option ROM is turned off, for it only slows down a boot that is not from
// the network, unless the domain boots from the network or says what ROM it
// wants.
//
// Not a byte outside of these interfaces changes, and doing it again changes
// nothing at all. Without NICs the XML is only checked to be a domain's: one
// document in UTF-8 of at most 4 MiB, whose root is <domain>, without a document
// type declaration.
//
// An error names the NIC which is incomplete, in conflict with another, or
// for which the domain has more than one interface.
func Attach(xml []byte, nics ...NIC) ([]byte, error) {
	root, err := parseDomain(xml)
	if err != nil {
		return nil, fmt.Errorf("parse domain XML: %w", err)
	}
	wanted, err := complete(nics)
	if err != nil {
		return nil, err
	}
	old, err := match(root, wanted)
	if err != nil {
		return nil, err
	}
	d := document{xml, root}
	var edits []edit
	var added []NIC
	for i, n := range wanted {
		if old[i] == nil {
			added = append(added, n)
			continue
		}
		text, err := d.replace(old[i], n)
		if err != nil {
			return nil, fmt.Errorf("NIC %s: %w", n, err)
		}
		edits = append(edits, edit{old[i].start, old[i].end, text})
	}
	if len(added) > 0 {
		e, err := d.add(added)
		if err != nil {
			return nil, err
		}
		edits = append(edits, e)
	}
	return apply(xml, edits), nil
}

// match finds for each NIC the interface of the domain which it replaces, or
// nil.
func match(root *node, nics []NIC) ([]*node, error) {
	found := make([]*node, len(nics))
	for at, iface := range root.all("devices", "interface") {
		var owner *NIC
		for i := range nics {
			n := &nics[i]
			if !n.is(iface) {
				continue
			}
			if owner != nil {
				return nil, fmt.Errorf("NICs %s and %s both are interface %d of the domain: by alias, tap or MAC", owner, n, at+1)
			}
			if found[i] != nil {
				return nil, fmt.Errorf("NIC %s is more than one interface of the domain: by alias %s, tap %s or MAC %s; remove all but one", n, n.Alias, n.Tap, n.MAC)
			}
			owner, found[i] = n, iface
		}
	}
	return found, nil
}

// is reports whether the interface of the domain stands for n.
func (n NIC) is(iface *node) bool {
	address, err := mac.Parse(iface.value("address", "mac"))
	return iface.value("name", "alias") == n.Alias ||
		iface.value("dev", "target") == n.Tap ||
		err == nil && address == n.MAC
}

// An edit puts text in the place of the bytes from start to end.
type edit struct {
	start, end int
	text       string
}

// apply returns doc with the edits made, which do not overlap.
func apply(doc []byte, edits []edit) []byte {
	slices.SortStableFunc(edits, func(a, b edit) int { return cmp.Compare(a.start, b.start) })
	var out []byte
	at := 0
	for _, e := range edits {
		out = append(append(out, doc[at:e.start]...), e.text...)
		at = e.end
	}
	return append(out, doc[at:]...)
}
