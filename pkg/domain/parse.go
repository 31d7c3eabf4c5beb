package domain

import (
	"bytes"
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"strings"
)

// maxXML bounds a domain's XML, in bytes, as libvirt's wire protocol does
// (VIR_NET_MESSAGE_STRING_MAX).
const maxXML = 4 << 20

const byteOrderMark = "\ufeff"

// A node is an element and the place where it stands in the document:
// doc[start:open] is its start tag, doc[close:end] its end tag, empty after <x/>.
type node struct {
	tag                     string // as written, prefix and all
	attr                    []xml.Attr
	text                    []byte // its own character data
	children                []*node
	start, open, close, end int
}

// parseDomain reads the XML of a domain, as strictly as libvirt. That it is a
// domain libvirt would take is not checked.
func parseDomain(doc []byte) (*node, error) {
	if len(doc) > maxXML {
		return nil, fmt.Errorf("%d bytes are more than the %d libvirt takes", len(doc), maxXML)
	}
	root, err := parse(doc)
	if err != nil {
		return nil, err
	}
	if root.tag != "domain" {
		return nil, fmt.Errorf("the root element is <%s>, not <domain>", root.tag)
	}
	return root, nil
}

// Name returns the name of the domain in the XML. Without one libvirt starts
// nothing.
func Name(doc []byte) (string, error) {
	root, err := parseDomain(doc)
	if err != nil {
		return "", fmt.Errorf("parse domain XML: %w", err)
	}
	names := root.all("name")
	if len(names) == 0 || len(names[0].text) == 0 {
		return "", errors.New("domain XML has no <name>")
	}
	return string(names[0].text), nil
}

// parse returns the root element of a well-formed document in UTF-8.
func parse(doc []byte) (*node, error) {
	d := xml.NewDecoder(bytes.NewReader(doc))
	d.CharsetReader = onlyASCII
	top := &node{} // holds the root
	open := []*node{top}
	for {
		before := int(d.InputOffset())
		token, err := d.RawToken() // Token would hide the prefixes
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return nil, err
		}
		after := int(d.InputOffset())
		inner := open[len(open)-1]
		switch t := token.(type) {
		case xml.StartElement:
			n := &node{tag: name(t.Name), attr: t.Copy().Attr, start: before, open: after}
			inner.children = append(inner.children, n)
			open = append(open, n)
		case xml.EndElement:
			if inner == top || inner.tag != name(t.Name) {
				return nil, fmt.Errorf("at byte %d </%s> ends nothing", before, name(t.Name))
			}
			inner.close, inner.end = before, after
			open = open[:len(open)-1]
		case xml.CharData:
			inner.text = append(inner.text, t...)
		case xml.Directive:
			return nil, errors.New("a document type declaration is not taken")
		}
	}
	if inner := open[len(open)-1]; inner != top {
		return nil, fmt.Errorf("<%s> has no end", inner.tag)
	}
	if text := bytes.TrimPrefix(top.text, []byte(byteOrderMark)); len(bytes.TrimSpace(text)) > 0 {
		return nil, errors.New("text outside the root element")
	}
	if len(top.children) != 1 {
		return nil, fmt.Errorf("%d root elements, want one", len(top.children))
	}
	return top.children[0], nil
}

// onlyASCII lets pass what needs no conversion to be UTF-8.
func onlyASCII(charset string, r io.Reader) (io.Reader, error) {
	if strings.EqualFold(charset, "us-ascii") || strings.EqualFold(charset, "ascii") {
		return r, nil
	}
	return nil, errors.New("only UTF-8 is taken")
}

func name(n xml.Name) string {
	if n.Space == "" {
		return n.Local
	}
	return n.Space + ":" + n.Local
}

// all returns the elements at the path below n.
func (n *node) all(path ...string) []*node {
	found := []*node{n}
	for _, tag := range path {
		var next []*node
		for _, f := range found {
			for _, c := range f.children {
				if c.tag == tag {
					next = append(next, c)
				}
			}
		}
		found = next
	}
	return found
}

// value is the attribute key of the first element at the path below n, or "".
func (n *node) value(key string, path ...string) string {
	for _, f := range n.all(path...) {
		for _, a := range f.attr {
			if name(a.Name) == key {
				return a.Value
			}
		}
	}
	return ""
}
