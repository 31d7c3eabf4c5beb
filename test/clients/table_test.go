package clients

import (
	"cmp"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
)

// tablePath is of what the clients did with the leases.
var tablePath = filepath.Join("..", "..", "docs", "clients.md")

const tableHead = `# DHCP clients

What real DHCP clients, of Debian 12, make of the leases that a guest can get.
Each runs in a guest behind the tap of a pod of which virt-launcher-net has
taken care. What is told here is each client's own state: addresses, routes and
MTU as ip(8) shows them in the guest, DNS servers, search list and hostname as
the client has set them there. iPXE and OVMF, which are firmware of a virtual
machine, say what they have on their consoles: iPXE by its commands, OVMF by
those of its shell. test/netboot has both load and run a file, by IPv4 and IPv6.
Debian in a VM, whose client is systemd-networkd, takes some of the leases;
systemd-networkd by itself takes all.

Of the leases of IPv6, a guest is told by router advertisements and DHCPv6. Each
client that is a program, and Debian, then sends and gets packets and TCP, and does
so again once virt-launcher-net is killed: for as long as its address lasts, and by
a default route without end.

All this is so by both datapaths: ` + "`make test`" + ` has the pods prepared by bridge, and
` + "`make test-redirect`" + ` by redirect, with the same leases, clients and packets. By redirect
a lease without a gateway has one route more, to the pod's alias.

This is written by the tests: ` + "`go test ./test/clients -update`" + `. ` + "`make test`" + ` and
` + "`make test-redirect`" + ` fail if a client does otherwise. ✓ is as given, + and − are what the
client has beyond that and what it lacks, – is nothing.
`

// checkTable compares what the clients did with the documentation, or writes it.
func checkTable(t *testing.T, results map[string]result) {
	t.Helper()
	got := table(results)
	if *update {
		if err := os.WriteFile(tablePath, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	want, err := os.ReadFile(tablePath)
	if err != nil {
		t.Fatal(err)
	}
	if string(want) != got {
		t.Errorf("differs from %s (write it with -update):\n%s", tablePath, got)
	}
}

func table(results map[string]result) string {
	var b strings.Builder
	b.WriteString(tableHead)
	for _, l := range everyLease() {
		fmt.Fprintf(&b, "\n## %s%s\n\n", strings.ToUpper(l.title[:1]), l.title[1:])
		writeRow(&b, columns(l, "Client", "Address", "Routes", "MTU", "DNS", "Search list", "Hostname", "Renewal")...)
		writeRow(&b, columns(l, slices.Repeat([]string{"---"}, 8)...)...)
		g := l.given
		writeRow(&b, columns(l, "*given*", g.Address, listRoutes(g.Routes), fmt.Sprint(g.MTU), lines(g.DNS), lines(g.Search), g.Hostname, "")...)
		for _, c := range takers(l) {
			r := results[l.name+"/"+c.name]
			writeRow(&b, columns(l, c.title,
				cell(r.state.Address, g.Address), routesCell(r.state.Routes, g.Routes), cell(r.state.MTU, g.MTU),
				listCell(r.state.DNS, g.DNS), listCell(r.state.Search, g.Search), cell(r.state.Hostname, g.Hostname), r.renewed)...)
		}
	}
	b.WriteString("\n## Habits\n\nWhy some differ from what is given, which is their way with every server:\n\n")
	for _, c := range clients() {
		for _, h := range c.own {
			fmt.Fprintf(&b, "- %s: %s\n", c.title, h.why)
		}
		for _, h := range c.own6 {
			fmt.Fprintf(&b, "- %s, IPv6: %s\n", c.title, h.why)
		}
	}
	return b.String()
}

// columns are a row's, for a table of the lease: there is no hostname by IPv6.
func columns(l lease, all ...string) []string {
	if l.six {
		return slices.Delete(all, 6, 7)
	}
	return all
}

func writeRow(b *strings.Builder, cells ...string) {
	fmt.Fprintf(b, "| %s |\n", strings.Join(cells, " | "))
}

const (
	same    = "✓"
	missing = "–"
)

func cell[V comparable](got, given V) string {
	var none V
	switch got {
	case given:
		return same
	case none:
		return missing
	}
	return fmt.Sprint(got)
}

func lines(list []string) string { return strings.Join(list, "<br>") }

// listCell is for lists of which the order matters.
func listCell(got, given []string) string {
	if slices.Equal(got, given) {
		return same
	}
	return cmp.Or(lines(got), missing)
}

// routesCell is for lists of which the order does not matter.
func routesCell(got, given []string) string {
	mtu := ""
	if _, words, ok := strings.Cut(append(slices.Clone(got), "")[0], " mtu "); ok {
		mtu = " mtu " + words
	}
	plain := make([]string, len(got))
	for i, r := range got {
		plain[i] = strings.TrimSuffix(r, mtu)
	}
	var parts []string
	if added := without(plain, given); len(added) > 0 {
		parts = append(parts, "+ "+listRoutes(added))
	}
	if lost := without(given, plain); len(lost) > 0 {
		parts = append(parts, "− "+listRoutes(lost))
	}
	if len(parts) == 0 {
		parts = append(parts, same)
	}
	if mtu != "" {
		parts = append(parts, "each with"+mtu)
	}
	return lines(parts)
}

// listRoutes shortens long lists.
func listRoutes(routes []string) string {
	const many = 6
	if len(routes) == 0 {
		return "none"
	}
	if len(routes) > many {
		last := len(routes) - 1
		return fmt.Sprintf("%s, %s, … %s: %d routes", routes[0], routes[1], routes[last], len(routes))
	}
	return strings.Join(routes, ", ")
}

func without(list, others []string) []string {
	return slices.DeleteFunc(slices.Clone(list), func(s string) bool { return slices.Contains(others, s) })
}

// explain tells in what two states differ.
func explain(got, want state) string {
	var b strings.Builder
	g, w := reflect.ValueOf(got), reflect.ValueOf(want)
	for i := range g.NumField() {
		if !reflect.DeepEqual(g.Field(i).Interface(), w.Field(i).Interface()) {
			fmt.Fprintf(&b, "%s is %v, not %v\n", g.Type().Field(i).Name, g.Field(i), w.Field(i))
		}
	}
	return b.String()
}
