package domain

import (
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/beevik/etree"
)

// hostSide lists the elements of an interface which say how the host connects
// it. On one of type ethernet libvirt refuses virtualport, port, coalesce, ip and
// route, and does not read vlan, portForward and actual; source would put
// addresses on the tap and script and downscript may do anything to it; filterref
// needs the nwfilter driver and ebtables, which a pod does not have, for what the
// pod's port guard does.
var hostSide = []string{
	"source", "virtualport", "vlan", "port", "portForward", "ip", "route", "script", "downscript", "coalesce", "filterref", "actual",
}

// interfaceXML returns the interface in text, which stands on the line, turned
// into n. If it is n already, the text is returned as it is.
func (d document) interfaceXML(text string, style etree.WriteSettings, line string, n NIC) (string, error) {
	doc := etree.NewDocument()
	doc.ReadSettings = etree.ReadSettings{PreserveCData: true, PreserveDuplicateAttrs: true}
	doc.WriteSettings = style
	if err := doc.ReadFromString(text); err != nil {
		return "", fmt.Errorf("read the interface it replaces: %w", err)
	}
	before, err := doc.WriteToString()
	if err != nil {
		return "", fmt.Errorf("write interface: %w", err)
	}
	e := &element{Element: doc.Root(), line: line, childLine: d.deeper(line)}
	if err := e.become(n, d.root); err != nil {
		return "", err
	}
	after, err := doc.WriteToString()
	if err != nil {
		return "", fmt.Errorf("write interface: %w", err)
	}
	if after == before {
		return text, nil
	}
	return after, nil
}

// styleOf returns the settings which write XML as it is written in text:
// libvirt's own is <a b='c'/>, that of Go's encoding/xml <a b="c"></a>.
func styleOf(text string) etree.WriteSettings {
	return etree.WriteSettings{
		AttrSingleQuote:  strings.Count(text, `='`) >= strings.Count(text, `="`),
		CanonicalEndTags: (strings.Contains(text, `"></`) || strings.Contains(text, `'></`)) && !strings.Contains(text, `/>`),
		CanonicalText:    true,
		CanonicalAttrVal: true,
	}
}

// An element is an interface being edited.
type element struct {
	*etree.Element
	line, childLine string // what to write before the end tag, and before each child
	next            int    // where the next new child goes
}

// become makes e the NIC n of the domain.
func (e *element) become(n NIC, domain *node) error {
	e.measure()
	model := e.model(n)
	if n.Queues > 1 && !strings.HasPrefix(model, defaultModel) {
		return fmt.Errorf("%d queues need a virtio model, not %s", n.Queues, model)
	}
	e.dropHostSide(model)

	e.CreateAttr("type", "ethernet")
	e.put("mac").CreateAttr("address", n.MAC.String())
	target := e.put("target")
	target.CreateAttr("dev", n.Tap)
	target.CreateAttr("managed", "no") // else libvirt makes the tap, or fails and deletes it
	e.put("model").CreateAttr("type", model)
	e.setQueues(n.Queues)
	if n.MTU > 0 {
		e.put("mtu").CreateAttr("size", strconv.Itoa(n.MTU))
	} else {
		e.drop("mtu")
	}
	e.put("alias").CreateAttr("name", n.Alias)
	if e.child("rom") == nil && e.hasROM(model, domain) && !e.boots(domain) {
		e.put("rom").CreateAttr("enabled", "no")
	}
	e.closeLine()
	return nil
}

// measure finds out how the children of e are indented.
func (e *element) measure() {
	if len(e.ChildElements()) == 0 {
		return
	}
	e.line, e.childLine = "", ""
	if text, ok := e.Child[0].(*etree.CharData); ok && text.IsWhitespace() {
		if i := strings.LastIndex(text.Data, "\n"); i >= 0 {
			e.childLine = text.Data[i:]
		}
	}
}

// closeLine gives the end tag of what was empty a line of its own.
func (e *element) closeLine() {
	if _, ok := e.Child[len(e.Child)-1].(*etree.Element); ok && e.line != "" {
		e.CreateText(e.line)
	}
}

// model returns the model of n once it has replaced e.
func (e *element) model(n NIC) string {
	if n.Model != "" {
		return n.Model
	}
	if old := e.child("model"); old != nil && attr(old, "type") != "" {
		return attr(old, "type")
	}
	return defaultModel
}

// dropHostSide removes what an interface on a tap of ours can't have.
func (e *element) dropHostSide(model string) {
	e.RemoveAttr("managed")             // of type hostdev
	e.RemoveAttr("trustGuestRxFilters") // would have libvirt follow the guest's MAC on the tap
	e.drop(hostSide...)
	for _, c := range e.ChildElements() {
		switch kind := attr(c, "type"); {
		case c.Space != "":
		case c.Tag == "backend" && kind != "", // another program at the tap, as passt
			c.Tag == "teaming" && kind == "transient", // the other half of a hostdev
			c.Tag == "address" && kind == "usb" && model != "usb-net":
			e.remove(c)
		case c.Tag == "bandwidth":
			for _, limit := range c.ChildElements() {
				limit.RemoveAttr("floor") // of a libvirt network
			}
		}
	}
}

// setQueues makes the number of queues that of the tap: QEMU can't open it with
// another.
func (e *element) setQueues(queues int) {
	driver := e.child("driver")
	if queues > 1 {
		driver = e.put("driver")
		driver.CreateAttr("queues", strconv.Itoa(queues))
	}
	if driver == nil {
		return
	}
	if queues <= 1 {
		driver.RemoveAttr("queues")
	}
	if name := attr(driver, "name"); name != "vhost" && name != "qemu" {
		driver.RemoveAttr("name") // of type hostdev
	}
	if len(driver.Attr) == 0 && len(driver.ChildElements()) == 0 {
		e.remove(driver)
	}
}

// hasROM reports whether libvirt lets the option ROM be turned off: on PCI only.
func (e *element) hasROM(model string, domain *node) bool {
	if strings.HasPrefix(domain.value("arch", "os", "type"), "s390") || model == "usb-net" || model == "spapr-vlan" {
		return false
	}
	address := e.child("address")
	return address == nil || attr(address, "type") == "pci"
}

// boots reports whether the guest may boot from e.
func (e *element) boots(domain *node) bool {
	return e.child("boot") != nil ||
		slices.ContainsFunc(domain.all("os", "boot"), func(b *node) bool { return b.value("dev") == "network" })
}

// put returns the child of that name; a new one comes after the one put before.
func (e *element) put(tag string) *etree.Element {
	child := e.child(tag)
	if child == nil {
		child = etree.NewElement(tag)
		if e.childLine != "" {
			e.InsertChildAt(e.next, etree.NewText(e.childLine))
			e.next++
		}
		e.InsertChildAt(e.next, child)
	}
	for _, again := range e.named(tag)[1:] {
		e.remove(again)
	}
	e.next = child.Index() + 1
	return child
}

// drop removes the children of these names.
func (e *element) drop(tags ...string) {
	for _, c := range e.named(tags...) {
		e.remove(c)
	}
}

// remove removes the child and the white space before it.
func (e *element) remove(child *etree.Element) {
	if i := child.Index(); i > 0 {
		if text, ok := e.Child[i-1].(*etree.CharData); ok && text.IsWhitespace() {
			e.RemoveChildAt(i - 1)
		}
	}
	e.RemoveChild(child)
}

// named returns the children of these names. A name with a prefix is another
// one, unlike for etree.
func (e *element) named(tags ...string) []*etree.Element {
	var found []*etree.Element
	for _, c := range e.ChildElements() {
		if c.Space == "" && slices.Contains(tags, c.Tag) {
			found = append(found, c)
		}
	}
	return found
}

// child returns the first child of that name, or nil.
func (e *element) child(tag string) *etree.Element {
	if found := e.named(tag); len(found) > 0 {
		return found[0]
	}
	return nil
}

// attr returns the value of the attribute without a prefix, or "".
func attr(e *etree.Element, key string) string {
	for _, a := range e.Attr {
		if a.Space == "" && a.Key == key {
			return a.Value
		}
	}
	return ""
}
