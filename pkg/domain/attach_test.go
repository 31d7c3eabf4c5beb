package domain

import (
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"libvirt.org/go/libvirtxml"

	"github.com/virt-launcher-net/virt-launcher-net/pkg/mac"
)

var update = flag.Bool("update", false, "write the golden files")

var (
	eth0 = NIC{Interface: "eth0", Tap: "tap-eth0", MAC: mac.Addr{0x0a, 0x58, 0x0a, 0xf4, 0x01, 0x07}, MTU: 1450}
	net1 = NIC{Interface: "net1", Tap: "tap-net1", MAC: mac.Addr{0x0a, 0x58, 0x0a, 0xf4, 0x02, 0x07}, MTU: 9001, Queues: 4}
)

// with returns a copy of n, changed.
func with(n NIC, change func(*NIC)) NIC {
	change(&n)
	return n
}

// goldens are the files in testdata and what is attached to each.
var goldens = []struct {
	name string
	nics []NIC
}{
	{"minimal", []NIC{eth0}},
	{"no-devices", []NIC{eth0}},
	{"empty-devices", []NIC{eth0}},
	{"foreign", []NIC{eth0}},
	{"by-alias", []NIC{eth0}},
	{"by-mac", []NIC{with(eth0, func(n *NIC) { n.MTU = 0 })}},
	{"by-tap", []NIC{with(eth0, func(n *NIC) { n.Model = "e1000e" })}},
	{"tuned", []NIC{with(eth0, func(n *NIC) { n.Queues = 8 })}},
	{"network-boot", []NIC{eth0}},
	{"kubevirt", []NIC{with(eth0, func(n *NIC) { n.Alias = "ua-default" }), net1}},
	{"several", []NIC{
		eth0,
		with(net1, func(n *NIC) { n.MAC = mac.Addr{0x52, 0x54, 0, 0, 0, 1}; n.Model = "virtio" }),
		{Interface: "net.2@x", Tap: "tap-net2", MAC: mac.Addr{0x52, 0x54, 0, 0, 0, 2}},
	}},
	{"weird", []NIC{eth0, net1}},
	{"one-line", []NIC{eth0}},
	{"crlf", []NIC{eth0, net1}},
	{"s390x", []NIC{eth0}},
	{"patched", []NIC{eth0}},
}

func readFile(t testing.TB, name string) []byte {
	t.Helper()
	b, err := os.ReadFile(filepath.Join("testdata", name))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func TestAttachGolden(t *testing.T) {
	for _, g := range goldens {
		t.Run(g.name, func(t *testing.T) {
			in := readFile(t, g.name+".xml")
			got, err := Attach(in, g.nics...)
			if err != nil {
				t.Fatal(err)
			}
			golden := filepath.Join("testdata", g.name+".golden.xml")
			if *update {
				if err := os.WriteFile(golden, got, 0o644); err != nil {
					t.Fatal(err)
				}
			}
			if diff := cmp.Diff(string(readFile(t, g.name+".golden.xml")), string(got)); diff != "" {
				t.Errorf("(-golden +got):\n%s", diff)
			}
			again, err := Attach(got, g.nics...)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(string(got), string(again)); diff != "" {
				t.Errorf("not idempotent (-first +second):\n%s", diff)
			}
			checkOthers(t, in, got, g.nics)
			checkWitness(t, got, g.nics)
		})
	}
}

// checkWitness has libvirt's own Go types read the NICs from the document.
func checkWitness(t testing.TB, doc []byte, nics []NIC) {
	t.Helper()
	var d libvirtxml.Domain
	if err := d.Unmarshal(string(doc)); err != nil {
		t.Fatalf("libvirtxml: %v\n%s", err, doc)
	}
	for _, n := range nics {
		i := byAlias(d.Devices.Interfaces, n.withDefaults().Alias)
		if i == nil {
			t.Fatalf("libvirtxml finds no interface %s", n)
		}
		if i.Source == nil || i.Source.Ethernet == nil {
			t.Errorf("%s: source %+v, want ethernet", n, i.Source)
		}
		if i.Target == nil || i.Target.Dev != n.Tap || i.Target.Managed != "no" {
			t.Errorf("%s: target %+v", n, i.Target)
		}
		if i.MAC == nil || i.MAC.Address != n.MAC.String() {
			t.Errorf("%s: mac %+v", n, i.MAC)
		}
		if i.Model == nil || i.Model.Type == "" || n.Model != "" && i.Model.Type != n.Model {
			t.Errorf("%s: model %+v", n, i.Model)
		}
		if (i.MTU == nil) != (n.MTU == 0) || i.MTU != nil && i.MTU.Size != uint(n.MTU) {
			t.Errorf("%s: mtu %+v", n, i.MTU)
		}
		var queues uint
		if i.Driver != nil {
			queues = i.Driver.Queues
		}
		if n.Queues > 1 && queues != uint(n.Queues) || n.Queues <= 1 && queues != 0 {
			t.Errorf("%s: %d queues", n, queues)
		}
	}
}

func byAlias(interfaces []libvirtxml.DomainInterface, alias string) *libvirtxml.DomainInterface {
	for _, i := range interfaces {
		if i.Alias != nil && i.Alias.Name == alias {
			return &i
		}
	}
	return nil
}

func TestAttachChangedNIC(t *testing.T) {
	first, err := Attach(readFile(t, "minimal.xml"), eth0)
	if err != nil {
		t.Fatal(err)
	}
	second := with(eth0, func(n *NIC) { n.Queues, n.Tap, n.MTU, n.MAC = 2, "tap9", 0, net1.MAC })
	got, err := Attach(first, second)
	if err != nil {
		t.Fatal(err)
	}
	checkWitness(t, got, []NIC{second})
	back, err := Attach(got, eth0)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(first), string(back)); diff != "" {
		t.Error(diff)
	}
	checkWitness(t, back, []NIC{eth0})
}

// libvirt refuses to turn off the ROM of what is no PCI device.
func TestAttachROM(t *testing.T) {
	for model, want := range map[string]bool{"virtio": true, "e1000": true, "usb-net": false, "spapr-vlan": false} {
		got, err := Attach([]byte("<domain/>"), with(eth0, func(n *NIC) { n.Model = model }))
		if err != nil || strings.Contains(string(got), `<rom enabled="no"/>`) != want {
			t.Errorf("%s: %v\n%s", model, err, got)
		}
	}
}

func TestAttachDocumentErrors(t *testing.T) {
	for _, tt := range []struct{ name, xml, want string }{
		{"empty", "", "0 root elements"},
		{"text", "no XML", "text outside the root element"},
		{"other root", "<network><name>x</name></network>", "the root element is <network>, not <domain>"},
		{"fragment", "<devices/>", "the root element is <devices>"},
		{"snapshot", "<domainsnapshot><domain/></domainsnapshot>", "<domainsnapshot>"},
		{"prefixed root", `<x:domain xmlns:x="y"/>`, "<x:domain>"},
		{"two roots", "<domain/><domain/>", "2 root elements"},
		{"text after", "<domain/>x", "text outside"},
		{"unclosed", "<domain>\n<devices>", "line 2: unexpected EOF"},
		{"crossed", "<domain><devices></domain></devices>", "element <devices> closed by </domain>"},
		{"end only", "</domain>", "unexpected end element </domain>"},
		{"cut", "<domain><devic", "syntax error"},
		{"doctype", `<!DOCTYPE domain SYSTEM "x"><domain/>`, "document type declaration"},
		{"entities", `<!DOCTYPE d [<!ENTITY a "b">]><domain>&a;</domain>`, "document type declaration"},
		{"entity", "<domain>&a;</domain>", "entity"},
		{"latin-1", "<?xml version='1.0' encoding='ISO-8859-1'?><domain/>", "only UTF-8"},
		{"not UTF-8", "<domain>\xff</domain>", "UTF-8"},
		{"too long", "<domain>" + strings.Repeat(" ", maxXML) + "</domain>", "libvirt takes at most"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			_, err := Attach([]byte(tt.xml), eth0)
			if err == nil || !strings.HasPrefix(err.Error(), "parse domain XML: ") || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("got %v, want %q in it", err, tt.want)
			}
		})
	}
}

func TestAttachNICErrors(t *testing.T) {
	ambiguous := `<domain><devices>
		<interface type='user'><alias name='ua-eth0'/></interface>
		<interface type='user'><mac address='A:58:a:F4:1:7'/></interface>
		<interface type='user'><alias name='ua-net1'/><target dev='tap7'/></interface>
		<interface type='user'><model type='e1000'/><mac address='02:00:00:00:00:08'/></interface>
	</devices></domain>`
	for _, tt := range []struct {
		name string
		nics []NIC
		want string
	}{
		{"zero", []NIC{{}}, "neither interface nor alias"},
		{"no tap", []NIC{with(eth0, func(n *NIC) { n.Tap = "" })}, "NIC eth0: no tap"},
		{"long tap", []NIC{with(eth0, func(n *NIC) { n.Tap = "tap-0123456789ab" })}, "not the name of a network device"},
		{"tap pattern", []NIC{with(eth0, func(n *NIC) { n.Tap = "tap%d" })}, "not the name of a network device"},
		{"no MAC", []NIC{with(eth0, func(n *NIC) { n.MAC = mac.Addr{} })}, "no MAC"},
		{"multicast MAC", []NIC{with(eth0, func(n *NIC) { n.MAC = mac.Addr{1, 0, 0x5e, 0, 0, 1} })}, "not a unicast"},
		{"MTU", []NIC{with(eth0, func(n *NIC) { n.MTU = 67 })}, "MTU 67"},
		{"queues", []NIC{with(eth0, func(n *NIC) { n.Queues = -1 })}, "-1 queues"},
		{"many queues", []NIC{with(eth0, func(n *NIC) { n.Queues = 257 })}, "257 queues"},
		{"model", []NIC{with(eth0, func(n *NIC) { n.Model = "<x>" })}, `model "<x>"`},
		{"alias", []NIC{with(eth0, func(n *NIC) { n.Alias = "eth0" })}, `alias "eth0"`},
		{"queues of e1000", []NIC{with(net1, func(n *NIC) { n.Model = "e1000" })}, "NIC net1: 4 queues need a virtio model, not e1000"},
		{"queues of the e1000 there", []NIC{with(net1, func(n *NIC) {
			n.Alias, n.MAC = "ua-a", mac.Addr{2, 0, 0, 0, 0, 8}
		})}, "need a virtio model, not e1000"},
		{"same alias", []NIC{eth0, with(net1, func(n *NIC) { n.Alias = "ua-eth0" })}, "NICs eth0 and net1 have the same alias ua-eth0"},
		{"same tap", []NIC{eth0, with(net1, func(n *NIC) { n.Tap = eth0.Tap })}, "the same tap tap-eth0"},
		{"same MAC", []NIC{eth0, with(net1, func(n *NIC) { n.MAC = eth0.MAC })}, "the same MAC 0a:58:0a:f4:01:07"},
		{"two interfaces", []NIC{eth0}, "NIC eth0 matches more than one interface of the domain"},
		{"two NICs", []NIC{net1, with(eth0, func(n *NIC) { n.Tap, n.MAC, n.Alias = "tap7", mac.Addr{2, 0, 0, 0, 0, 9}, "ua-x" })}, "both match interface 3"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got, err := Attach([]byte(ambiguous), tt.nics...)
			if err == nil || !strings.Contains(err.Error(), tt.want) || got != nil {
				t.Errorf("got %q, %v, want an error with %q", got, err, tt.want)
			}
		})
	}
}

// Hostile documents take no time worth speaking of.
func TestAttachHostileDocuments(t *testing.T) {
	for _, tt := range []struct{ name, xml, err string }{
		{"deep", "<domain>" + strings.Repeat("<a>", 300_000) + strings.Repeat("</a>", 300_000) + "</domain>", "exceeds maximum depth"},
		{"fragmented", "<domain>" + strings.Repeat("a<!---->", 500_000) + "</domain>", ""},
		{"many", "<domain><devices>" + strings.Repeat("<interface/>", 300_000) + "</devices></domain>", ""},
		{"many drivers", "<domain><devices><interface><alias name='ua-eth0'/>" + strings.Repeat("<driver/> ", 400_000) + "</interface></devices></domain>", ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			_, err := Attach([]byte(tt.xml), eth0, net1)
			if (err == nil) != (tt.err == "") || err != nil && !strings.Contains(err.Error(), tt.err) {
				t.Errorf("got %v, want %q", err, tt.err)
			}
		})
	}
}
