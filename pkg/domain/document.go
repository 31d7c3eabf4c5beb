package domain

import (
	"bytes"
	"fmt"
	"strings"
)

// A document is the XML of a domain, to write in as its author did.
type document struct {
	text []byte
	root *node
}

// replace returns the interface turned into n.
func (d document) replace(iface *node, n NIC) (string, error) {
	text := string(d.text[iface.start:iface.end])
	changed, err := d.interfaceXML(text, styleOf(text), d.lineOf(iface), n)
	if err != nil || changed == text {
		return text, err
	}
	return d.newlines(changed), nil
}

// add returns the edit which puts the NICs after the last interface, else after
// what libvirt itself writes before the interfaces, else at the top of
// <devices>, which is made if need be.
func (d document) add(nics []NIC) (edit, error) {
	devices := d.root.all("devices")
	if len(devices) == 0 {
		return d.addDevices(nics)
	}
	for _, tag := range []string{"interface", "filesystem", "lease", "controller", "disk", "emulator"} {
		if before := d.root.all("devices", tag); len(before) > 0 {
			last := before[len(before)-1]
			text, err := d.interfaces(nics, d.lineOf(last))
			at := d.afterComment(last.end)
			return edit{at, at, d.newlines(text)}, err
		}
	}
	text, err := d.interfaces(nics, d.childLine(devices[0]))
	return d.inside(devices[0], text), err
}

// addDevices returns the edit which ends the domain with the NICs in a <devices>
// of their own.
func (d document) addDevices(nics []NIC) (edit, error) {
	line := d.childLine(d.root)
	text, err := d.interfaces(nics, d.deeper(line))
	if err != nil {
		return edit{}, err
	}
	text = line + "<devices>" + text + line + "</devices>"
	if n := len(d.root.children); n > 0 {
		last := d.root.children[n-1].end
		return edit{last, last, d.newlines(text)}, nil
	}
	return d.inside(d.root, text), nil
}

// inside returns the edit which puts the text at the beginning of n.
func (d document) inside(n *node, text string) edit {
	if n.open == n.close { // nothing in it, so the end tag has no line yet
		text += d.lineOf(n)
	}
	if n.open < n.end {
		return edit{n.open, n.open, d.newlines(text)}
	}
	tag := strings.TrimRight(strings.TrimSuffix(string(d.text[n.start:n.open]), "/>"), " \t\r\n")
	return edit{n.start, n.end, tag + d.newlines(">"+text+"</"+n.tag+">")}
}

// interfaces returns the NICs as new interfaces, each on a line of its own.
func (d document) interfaces(nics []NIC, line string) (string, error) {
	var b strings.Builder
	style := styleOf(string(d.text[d.root.start:]))
	for _, n := range nics {
		text, err := d.interfaceXML("<interface/>", style, line, n)
		if err != nil {
			return "", fmt.Errorf("NIC %s: %w", n, err)
		}
		b.WriteString(line + text)
	}
	return b.String(), nil
}

// lineOf returns what stands before n on its line: a newline and the
// indentation, or nothing if n is not the first on its line.
func (d document) lineOf(n *node) string {
	before := bytes.TrimRight(d.text[:n.start], " \t")
	if len(before) > 0 && before[len(before)-1] != '\n' {
		return ""
	}
	return "\n" + string(d.text[len(before):n.start])
}

// afterComment returns the end of the comment which closes the line of what ends
// at end, or end if there is none.
func (d document) afterComment(end int) int {
	line, _, _ := bytes.Cut(d.text[end:], []byte("\n"))
	text := bytes.TrimSpace(line)
	if bytes.HasPrefix(text, []byte("<!--")) && bytes.Index(text, []byte("-->")) == len(text)-len("-->") {
		return end + len(bytes.TrimRight(line, " \t\r"))
	}
	return end
}

// childLine returns what to write before a child of n.
func (d document) childLine(n *node) string {
	if len(n.children) > 0 {
		return d.lineOf(n.children[0])
	}
	return d.deeper(d.lineOf(n))
}

// deeper returns the line of a child of what has this line.
func (d document) deeper(line string) string {
	if line == "" {
		return ""
	}
	const usual = "  " // of libvirt
	if len(d.root.children) == 0 {
		return line + usual
	}
	first := d.lineOf(d.root.children[0])
	if first == "" {
		return line + usual
	}
	return line + strings.TrimPrefix(strings.TrimPrefix(first, "\n"), strings.TrimPrefix(d.lineOf(d.root), "\n"))
}

// newlines gives text the line ends of the document.
func (d document) newlines(text string) string {
	if bytes.Contains(d.text, []byte("\r\n")) {
		return strings.ReplaceAll(text, "\n", "\r\n")
	}
	return text
}
