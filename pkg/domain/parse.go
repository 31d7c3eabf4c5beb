package domain

import (
	"bytes"
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/beevik/etree"
)

// maxXML bounds a domain's XML, in bytes, as libvirt's wire protocol does
// (VIR_NET_MESSAGE_STRING_MAX).
const maxXML = 4 << 20

// written is how XML is written: line breaks that a value has as character
// references stay such, or libvirt would read them as spaces.
var written = etree.WriteSettings{CanonicalText: true, CanonicalAttrVal: true}

// inTag replaces what XML reads as a space in an attribute, but encoding/xml
// does not.
var inTag = strings.NewReplacer("\r\n", " ", "\r", " ", "\n", " ", "\t", " ")

// Name returns the name of the domain in the XML. libvirt starts no domain
// without one.
func Name(xml []byte) (string, error) {
	doc, err := parse(xml)
	if err != nil {
		return "", err
	}
	names := find(doc.Root(), "name")
	if len(names) == 0 || textOf(names[0]) == "" {
		return "", errors.New("domain XML has no <name>")
	}
	return textOf(names[0]), nil
}

// textOf returns all text in the element, as libvirt reads it: also what comments,
// processing instructions and further elements divide.
func textOf(e *etree.Element) string {
	var b strings.Builder
	for _, t := range e.Child {
		switch t := t.(type) {
		case *etree.CharData:
			b.WriteString(t.Data)
		case *etree.Element:
			b.WriteString(textOf(t))
		}
	}
	return b.String()
}

// parse reads the XML of a domain. It does not check that libvirt would take it.
func parse(text []byte) (*etree.Document, error) {
	doc := etree.NewDocument()
	doc.ReadSettings = etree.ReadSettings{PreserveCData: true, PreserveDuplicateAttrs: true}
	doc.WriteSettings = written
	plain, err := normalize(text)
	if err == nil {
		err = doc.ReadFromString(plain)
	}
	if err == nil {
		err = checkRoot(doc)
	}
	if err != nil {
		return nil, fmt.Errorf("parse domain XML: %w", err)
	}
	return doc, nil
}

// normalize returns well-formed XML without its declaration, and with spaces
// for the other white space in tags.
func normalize(text []byte) (string, error) {
	if len(text) > maxXML {
		return "", fmt.Errorf("it has %d bytes, libvirt takes at most %d", len(text), maxXML)
	}
	var b strings.Builder
	d := xml.NewDecoder(bytes.NewReader(text))
	d.CharsetReader = onlyASCII
	for start := int64(0); ; start = d.InputOffset() {
		token, err := d.Token()
		if errors.Is(err, io.EOF) {
			return strings.TrimLeft(b.String(), "\ufeff \t\r\n"), nil // with the byte order mark
		}
		if err != nil {
			return "", err
		}
		part := string(text[start:d.InputOffset()])
		switch t := token.(type) {
		case xml.Directive:
			return "", errors.New("it has a document type declaration (<!DOCTYPE>), which is not supported: remove it")
		case xml.ProcInst:
			if t.Target == "xml" { // the encoding is UTF-8 from now on
				continue
			}
		case xml.StartElement:
			part = inTag.Replace(part)
		}
		b.WriteString(part)
	}
}

// onlyASCII accepts the encoding that needs no conversion to UTF-8.
func onlyASCII(charset string, r io.Reader) (io.Reader, error) {
	if strings.EqualFold(charset, "us-ascii") || strings.EqualFold(charset, "ascii") {
		return r, nil
	}
	return nil, errors.New("only UTF-8 is supported")
}

// checkRoot refuses a document that is not one <domain>.
func checkRoot(doc *etree.Document) error {
	for _, t := range doc.Child {
		if _, is := t.(*etree.CharData); is && !isSpace(t) {
			return errors.New("text outside the root element")
		}
	}
	if roots := doc.ChildElements(); len(roots) != 1 {
		return fmt.Errorf("%d root elements, want one", len(roots))
	}
	if root := doc.Root().FullTag(); root != "domain" {
		return fmt.Errorf("the root element is <%s>, not <domain>", root)
	}
	return nil
}

// find returns the elements at the path below e. A name with a prefix is
// another name, unlike for etree's own search.
func find(e *etree.Element, path ...string) (found []*etree.Element) {
	if len(path) == 0 {
		return []*etree.Element{e}
	}
	for c := range e.ChildElementsSeq() {
		if c.FullTag() == path[0] {
			found = append(found, find(c, path[1:]...)...)
		}
	}
	return found
}

// value returns the attribute of the first element at the path below e that
// has it, or "".
func value(e *etree.Element, key string, path ...string) string {
	for _, f := range find(e, path...) {
		for _, a := range f.Attr {
			if a.FullKey() == key {
				return a.Value
			}
		}
	}
	return ""
}

// isSpace reports whether t is white space between elements.
func isSpace(t etree.Token) bool {
	text, is := t.(*etree.CharData)
	return is && !text.IsCData() && strings.TrimSpace(text.Data) == ""
}
