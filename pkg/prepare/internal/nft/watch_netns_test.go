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
		"add table OTHER; add chain OTHER c; add rule OTHER c accept; add rule TABLE a accept",
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
	}
	return b.String()
}

func inside(t *testing.T, ns *podtest.NS, do func() error) {
	t.Helper()
	if err := ns.Do(do); err != nil {
		t.Fatal(err)
	}
}
