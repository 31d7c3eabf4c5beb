package nft

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"

	"github.com/google/nftables"

	"github.com/virt-launcher-net/virt-launcher-net/internal/podtest"
)

// What the kernel's events make of the tables is what one reads of them, whatever
// somebody does to them.
func TestTablesAreFollowedByEvents(t *testing.T) {
	t.Parallel()
	ns := podtest.New(t)
	const table = podtest.GuardTable
	ns.Run(t, "nft", "add table "+table)
	var w *Watch
	inside(t, ns, func() (err error) {
		w, err = OpenWatch()
		return err
	})
	defer w.Close()
	for _, change := range []string{
		"add chain TABLE a { type filter hook forward priority filter ; }; add chain TABLE b",
		`add rule TABLE a accept comment "1"`,
		`add rule TABLE a counter comment "2"; add rule TABLE a counter comment "3"; add rule TABLE a counter comment "4"`,
		`insert rule TABLE a counter comment "0"`,
		`insert rule TABLE a counter comment "y"; insert rule TABLE a counter comment "x"; add rule TABLE b drop`,
		`add rule TABLE a index 1 counter comment "between"; insert rule TABLE a index 4 counter comment "too"`,
		`replace rule TABLE a handle HANDLE counter accept comment "replaced"`,
		"delete rule TABLE a handle HANDLE",
		"add chain TABLE a { policy drop ; }",
		"add set TABLE s { type inet_service ; flags interval ; elements = { 80, 90-99 } ; }",
		"add element TABLE s { 443 }; delete element TABLE s { 80 }",
		"add set TABLE d { type inet_service ; flags dynamic,timeout ; timeout 10m ; size 9 ; }",
		"flush set TABLE s; add element TABLE s { 0-1023 }",
		"delete set TABLE s; add set TABLE s { type inet_proto ; flags interval ; elements = { 6 } ; }; delete set TABLE d",
		"flush chain TABLE a",
		"delete chain TABLE b; add chain TABLE c { type filter hook input priority 7 ; }",
		"add table TABLE { flags dormant ; }",
		"delete table TABLE; add table TABLE; add chain TABLE a; add rule TABLE a counter",
		"flush ruleset",
	} {
		change = strings.NewReplacer("TABLE", table, "OTHER", podtest.GuardFamily+" other", "HANDLE", lastHandle(w)).Replace(change)
		ns.Run(t, "nft", change)
		if err := w.Wait(t.Context()); err != nil {
			t.Fatal(err)
		}
		var want map[ID]Present
		inside(t, ns, func() (err error) {
			want, err = Read()
			return err
		})
		if got, want := tablesText(w.Now()), tablesText(want); got != want {
			t.Fatalf("after %s the tables are\n%s\nwant\n%s", change, got, want)
		}
	}
}

// Other tables, and what frames put into a set, wake nobody.
func TestWatchSleepsWhileFramesPass(t *testing.T) {
	t.Parallel()
	ns := podtest.New(t)
	table := redirecting(flows4, flows6, ids4, ids6, ports)
	ns.IP(t, "link add v0 type veth peer v1")
	inside(t, ns, func() error { return Write(Change{Table: table}) })
	var w *Watch
	inside(t, ns, func() (err error) {
		w, err = OpenWatch()
		return err
	})
	defer w.Close()
	ns.Run(t, "nft", "add element "+table.String()+" flows4 { 192.0.2.1 . tcp . 80 . 30000 }")
	ns.Run(t, "nft", "add table "+podtest.GuardFamily+" other; add chain "+podtest.GuardFamily+" other c")
	ns.Run(t, "nft", "add element "+table.String()+" ports { 1 }")
	if err := w.Wait(t.Context()); err != nil {
		t.Fatal(err)
	}
	now := w.Now()[table.ID()]
	if err := table.Differs(now, true, indexIn(t, ns)); err == nil || err.Error() != "set ports has other elements than planned" {
		t.Errorf("once the watch wakes, the table %v", err)
	}
	if n := len(now.sets["flows4"].elements); n > 0 {
		t.Errorf("the watch keeps %d elements of a set that frames change", n)
	}
}

// lastHandle is that of the last rule but one of chain a.
func lastHandle(w *Watch) string {
	rules := w.Now()[ID{nftables.TableFamilyBridge, "virt-launcher-net-eth0"}].chains["a"].rules
	if len(rules) < 2 {
		return ""
	}
	return fmt.Sprint(rules[len(rules)-2].handle)
}

func tablesText(tables map[ID]Present) string {
	var b strings.Builder
	for _, id := range slices.SortedFunc(maps.Keys(tables), func(a, b ID) int { return cmp.Compare(a.Name, b.Name) }) {
		fmt.Fprintln(&b, id, tables[id].flags)
		for _, name := range slices.Sorted(maps.Keys(tables[id].chains)) {
			c := tables[id].chains[name]
			fmt.Fprintf(&b, "  %s %v", name, c.hook)
			for _, r := range c.rules {
				fmt.Fprint(&b, " ", r.handle, r.comment, r.accepts, r.values)
			}
			fmt.Fprintln(&b)
		}
		for _, name := range slices.Sorted(maps.Keys(tables[id].sets)) {
			fmt.Fprintln(&b, " ", name, tables[id].sets[name]) // fmt sorts maps
		}
	}
	return b.String()
}

func inside(t *testing.T, ns *podtest.NS, do func() error) {
	t.Helper()
	if err := ns.Do(do); err != nil {
		t.Fatal(err)
	}
}
