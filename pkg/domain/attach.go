package domain

import (
	"fmt"
	"slices"
	"strings"

	"github.com/beevik/etree"

	"github.com/virt-launcher-net/virt-launcher-net/pkg/mac"
)

// Attach returns the domain's XML with each of the NICs in it, as an interface
// of type ethernet on the NIC's tap, which libvirt does not manage (managed='no').
//
// An interface of the domain with the alias, the tap or the MAC of a NIC becomes
// that NIC, in its place. It keeps how the guest sees it: boot order, PCI
// address, driver, bandwidth, link state and whatever else NIC does not describe.
// It loses how the host connects it: source, virtualport, vlan, script,
// addresses, coalesce, filterref and the like, which libvirt would refuse on such
// an interface or use to undo what the pod was prepared with. A NIC without such
// an interface is added to the end of <devices>.
//
// The option ROM is turned off, since it only slows down a boot that is not from
// the network, unless the domain boots from the network or says what ROM it
// wants.
//
// Everything else keeps its meaning, but may be written differently: the result
// is UTF-8 without an XML declaration. Attaching the same NICs again changes
// nothing. Without NICs Attach only checks that the XML is a domain's: one
// document in UTF-8 of at most 4 MiB, whose root is <domain>, without a document
// type declaration.
//
// An error names the NIC that is incomplete, in conflict with another, or for
// which the domain has more than one interface.
func Attach(xml []byte, nics ...NIC) ([]byte, error) {
	d, err := read(xml, nics)
	if err != nil {
		return nil, err
	}
	for i, n := range d.nics {
		iface := d.matched[i]
		if iface == nil {
			iface = addInterface(d.Root())
		}
		if err := n.configure(iface, d.Root()); err != nil {
			return nil, err
		}
		indent(iface)
	}
	return d.WriteToBytes()
}

// A definition is a domain's XML beside the NICs that the domain is to have.
type definition struct {
	*etree.Document

	interfaces []*etree.Element
	nics       []NIC            // with their defaults
	matched    []*etree.Element // the interface each NIC replaces; nil: none
}

// read parses the XML and finds the interfaces that the NICs replace.
func read(xml []byte, nics []NIC) (*definition, error) {
	doc, err := parse(xml)
	if err != nil {
		return nil, err
	}
	if nics, err = complete(nics); err != nil {
		return nil, err
	}
	d := &definition{
		Document: doc, interfaces: find(doc.Root(), "devices", "interface"),
		nics: nics, matched: make([]*etree.Element, len(nics)),
	}
	for i, n := range nics {
		for at, iface := range d.interfaces {
			if !n.matches(iface) {
				continue
			}
			if other := slices.Index(d.matched, iface); other >= 0 {
				return nil, fmt.Errorf("NICs %s and %s both match interface %d of the domain: by alias, tap or MAC", nics[other], n, at+1)
			}
			if d.matched[i] != nil {
				return nil, fmt.Errorf("NIC %s matches more than one interface of the domain: by alias %s, tap %s or MAC %s; remove all but one", n, n.Alias, n.Tap, n.MAC)
			}
			d.matched[i] = iface
		}
	}
	return d, nil
}

// matches reports whether the interface has the alias, tap or MAC of n.
func (n NIC) matches(iface *etree.Element) bool {
	return value(iface, "name", "alias") == n.Alias || value(iface, "dev", "target") == n.Tap || macOf(iface) == n.MAC
}

// macOf is the interface's MAC, each byte of which libvirt takes with one digit, too
// (virMacAddrParse); zero, which no NIC's is, if it has none.
func macOf(iface *etree.Element) mac.Addr {
	digits := strings.Split(value(iface, "address", "mac"), ":")
	for i, d := range digits {
		if len(d) == 1 {
			digits[i] = "0" + d
		}
	}
	address, _ := mac.Parse(strings.Join(digits, ":"))
	return address
}
