package domain

import (
	"bytes"
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"libvirt.org/go/libvirtxml"
)

// meaning returns what a parser reads of the domain, apart from some of its
// interfaces, which are counted from 0. White space beside the children of
// <domain> and <devices> has no meaning.
func meaning(t testing.TB, doc []byte, without func(iface int) bool) string {
	t.Helper()
	var b strings.Builder
	var path []string
	depth, skipped := 0, 0 // the depth of the interface that is left out
	iface := -1
	d := xml.NewDecoder(bytes.NewReader(doc))
	d.CharsetReader = onlyASCII
	for {
		token, err := d.RawToken()
		if errors.Is(err, io.EOF) {
			return b.String()
		}
		if err != nil {
			t.Fatalf("%v\n%s", err, doc)
		}
		if start, is := token.(xml.StartElement); is {
			depth++
			path = append(path, start.Name.Space+":"+start.Name.Local)
			if slices.Equal(path, []string{":domain", ":devices", ":interface"}) {
				if iface++; without(iface) {
					skipped = depth
				}
			}
		}
		if skipped == 0 {
			writeToken(&b, token, depth < 2 || depth == 2 && path[1] == ":devices")
		}
		if _, is := token.(xml.EndElement); is {
			if depth == skipped {
				skipped = 0
			}
			depth--
			path = path[:depth]
		}
	}
}

// writeToken writes the token down. Padded says that white space has no meaning.
func writeToken(b *strings.Builder, token xml.Token, padded bool) {
	switch t := token.(type) {
	case xml.StartElement:
		fmt.Fprintf(b, "<%s", t.Name)
		for _, a := range t.Attr {
			fmt.Fprintf(b, " %s=%q", a.Name, inTag.Replace(a.Value))
		}
		b.WriteString(">")
	case xml.EndElement:
		fmt.Fprintf(b, "</%s>", t.Name)
	case xml.CharData:
		if padded {
			t = bytes.Join(bytes.Fields(bytes.TrimPrefix(t, []byte("\ufeff"))), nil)
		}
		_ = xml.EscapeText(b, t)
	case xml.Comment:
		fmt.Fprintf(b, "<!--%s-->", t)
	case xml.ProcInst:
		if t.Target != "xml" {
			fmt.Fprintf(b, "<?%s %s?>", t.Target, t.Inst)
		}
	}
}

// checkOthers checks that what is not one of the NICs has kept its meaning.
func checkOthers(t testing.TB, before, after []byte, nics []NIC) {
	t.Helper()
	d, err := read(before, nics)
	if err != nil {
		t.Fatal(err)
	}
	isNIC := func(i int) bool { return i >= len(d.interfaces) || slices.Contains(d.matched, d.interfaces[i]) }
	want, got := meaning(t, before, isNIC), meaning(t, after, isNIC)
	if len(find(d.Root(), "devices")) == 0 {
		got = withoutAdded(got)
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("changed besides the NICs (-before +after):\n%s", diff)
	}
}

// withoutAdded leaves out the <devices> that the NICs were put into: <domain>
// had none, and it is its last child. Metadata may have others.
func withoutAdded(meaning string) string {
	const added = "<{ devices}></{ devices}>"
	i := strings.LastIndex(meaning, added+"</{ domain}>")
	if i < 0 {
		return meaning
	}
	return meaning[:i] + meaning[i+len(added):]
}

// libvirt reads of what is beside the NICs what it would have read before.
func TestAttachKeepsMeaning(t *testing.T) {
	for _, tt := range []struct{ name, in, out string }{
		{"prefixes", `<domain xmlns:q='http://q'><q:arg q:a='1' a='2'/></domain>`, `<domain xmlns:q="http://q"><q:arg q:a="1" a="2"/></domain>`},
		{"a prefixed interface", `<domain><devices><x:interface xmlns:x='y'/></devices></domain>`, `<domain><devices><x:interface xmlns:x="y"/></devices></domain>`},
		{"CDATA", `<domain><title><![CDATA[a<b&]]></title></domain>`, `<domain><title><![CDATA[a<b&]]></title></domain>`},
		{"references", `<domain><title>&lt;&#60;&amp;&gt;&#13;&apos;</title></domain>`, `<domain><title>&lt;&lt;&amp;&gt;&#xD;'</title></domain>`},
		{"quotes", `<domain a='"' b="'"/>`, `<domain a="&quot;" b="'"/>`},
		{"line breaks in an attribute", "<domain a='1\n2\r\n3\t4&#10;5&#9;6'/>", `<domain a="1 2 3 4&#xA;5&#x9;6"/>`},
		{"a comment beside a value", `<domain><memory><!-- 1G -->1024<!-- MiB --></memory></domain>`, `<domain><memory><!-- 1G -->1024<!-- MiB --></memory></domain>`},
		{"white space", "<domain>\n <title> a  b\n</title>\n</domain>\n", "<domain>\n <title> a  b\n</title>\n</domain>\n"},
		{"declaration", "<?xml version='1.0' encoding='us-ascii'?>\n<domain><title>&#228;</title></domain>", "<domain><title>ä</title></domain>"},
		{"byte order mark", "\ufeff<?xml version='1.0'?><domain/>", "<domain/>"},
		{"duplicate attributes, which libvirt refuses", "<domain a='1' a='2'/>", `<domain a="1" a="2"/>`},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got, err := Attach([]byte(tt.in))
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(tt.out, string(got)); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
}

func FuzzAttach(f *testing.F) {
	for _, g := range goldens {
		f.Add(readFile(f, g.name+".xml"))
		f.Add(readFile(f, g.name+".golden.xml"))
	}
	f.Add([]byte(`<domain xmlns:x='y'><devices><x:interface><alias name='ua-eth0'/></x:interface><interface><x:alias name='ua-net1'/></interface></devices></domain>`))
	f.Add([]byte(`<domain><metadata><app:x><devices/></app:x></metadata></domain>`))
	f.Fuzz(func(t *testing.T, in []byte) {
		got, err := Attach(in, eth0, net1)
		if err != nil {
			return
		}
		again, err := Attach(got, eth0, net1)
		if err != nil {
			t.Fatalf("second time: %v\n%s", err, got)
		}
		if !bytes.Equal(got, again) {
			t.Fatalf("not idempotent:\n%s\n%s", got, again)
		}
		checkOthers(t, in, got, []NIC{eth0, net1})
		before, err := Foreign(in, nil, eth0, net1)
		if err != nil {
			t.Fatal(err)
		}
		if after, err := Foreign(got, nil, eth0, net1); err != nil || len(after) != len(before) {
			t.Fatalf("%d other NICs, %d after: %v", len(before), len(after), err)
		}
		var d libvirtxml.Domain
		if d.Unmarshal(string(in)) == nil {
			if err := d.Unmarshal(string(got)); err != nil {
				t.Fatalf("libvirtxml: %v\n%s", err, got)
			}
			checkWitness(t, got, []NIC{eth0, net1})
		}
	})
}
