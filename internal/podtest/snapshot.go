package podtest

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"
)

// witness is a command that Snapshot asks, which prints JSON documents; ip(8)
// reads what it is asked from its standard input, and prints one for each line.
type witness struct {
	command string
	batch   []string
}

var witnesses = []witness{
	{"ip -d -j -batch -", []string{
		"link", "addr", "nexthop", "rule", "neigh show nud permanent", "neigh show proxy",
		"route show table all root 0.0.0.0/0", "route show table all root ::/0",
	}},
	{command: "ip -6 -d -j rule"},
	{command: "tc -j qdisc show"},
	{command: nftRules},
}

// sysctlTrees are directories of kernel parameters in a snapshot, below
// /proc/sys/net.
var sysctlTrees = []string{"ipv4/conf/*", "ipv6/conf/*", "bridge"}

// Snapshot is everything about a namespace that outside witnesses tell: links
// with their attributes, as bridge ports too, addresses, routes of all tables,
// nexthop objects, rules, permanent and proxied neighbours, queueing disciplines,
// nftables' rules and the interfaces' sysctls, in the kernel's order. What changes
// by itself (timers, counters, remaining lifetimes) is left out, so that a namespace
// which was changed and restored has the same snapshot; interface indexes stay, a
// link that was deleted and made again differs. Compare two with [Diff], after
// [WaitSettled].
func Snapshot(ctx context.Context, ns *NS) (string, error) {
	var b strings.Builder
	for _, w := range witnesses {
		if err := w.testify(ctx, &b, ns); err != nil {
			return "", fmt.Errorf("take snapshot: %w", err)
		}
	}
	if err := ns.Do(func() error { return writeSysctls(&b) }); err != nil {
		return "", fmt.Errorf("take snapshot: %w", err)
	}
	return b.String(), nil
}

// testify writes what the command tells of the namespace.
func (w witness) testify(ctx context.Context, b *strings.Builder, ns *NS) error {
	args := strings.Fields(w.command)
	cmd := ns.Command(ctx, args[0], args[1:]...)
	cmd.Stdin = strings.NewReader(strings.Join(w.batch, "\n"))
	out, err := output(cmd, args[0], slices.Concat(args[1:], w.batch))
	if err != nil {
		return err
	}
	texts, err := stableJSON(out)
	if err != nil {
		return fmt.Errorf("read output of %s: %w", w.command, err)
	}
	if len(texts) != max(len(w.batch), 1) {
		return fmt.Errorf("%s printed %d documents", w.command, len(texts))
	}
	for i, text := range texts {
		title := w.command
		if len(w.batch) > 0 {
			title = strings.Replace(title, "-batch -", w.batch[i], 1)
		}
		switch title {
		case ipv6Routes:
			text = withoutChance(text)
		case nftRules:
			text = byFamily(text)
		}
		fmt.Fprintf(b, "# %s\n%s\n", title, text)
	}
	return nil
}

const ipv6Routes = "ip -d -j route show table all root ::/0"

const nftRules = "nft -j list ruleset"

// byFamily sorts nftables' objects by their family, and leaves the order within one: the
// kernel lists a table that was made again last.
func byFamily(text string) string {
	begin, rest, _ := strings.Cut(text, "[\n")
	objects := strings.Split(strings.TrimSuffix(rest, "\n ]\n}"), ",\n  {")
	family := func(object string) string {
		_, after, _ := strings.Cut(object, `"family": "`)
		name, _, _ := strings.Cut(after, `"`)
		return name
	}
	slices.SortStableFunc(objects, func(a, b string) int { return strings.Compare(family(a), family(b)) })
	return begin + "[\n" + strings.Join(objects, ",\n  {")
}

// withoutChance sorts the routes of a JSON array, and leaves out what only says who had
// a tap open, and when. The kernel puts each new IPv6 route behind the others to the same
// destination (fib6_add_rt2node, net/ipv6/ip6_fib.c), also its own to fe80::/64 and
// ff00::/8. It makes these when it notices a carrier, and so not at all if a tap was
// closed again before it did; without a carrier nobody can use them.
func withoutChance(text string) string {
	items := strings.Split("\n  "+strings.Trim(text, "[]{} \n"), "\n },\n {")
	items = slices.DeleteFunc(items, func(item string) bool {
		return strings.Contains(item, `"dst": "ff00::/8"`) && strings.Contains(item, `"linkdown"`)
	})
	slices.Sort(items)
	return strings.Join(items, "\n },\n {")
}

// TakeSnapshot is [Snapshot] of a namespace that has settled, for a test.
func TakeSnapshot(t testing.TB, ns *NS) string {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), Patience)
	defer cancel()
	if err := errors.Join(waitTaps(ns), WaitSettled(ctx, ns)); err != nil {
		t.Fatal(err)
	}
	text, err := Snapshot(t.Context(), ns)
	if err != nil {
		t.Fatal(err)
	}
	return text
}

// Diff tells the lines in which two snapshots differ; empty if in none.
func Diff(before, after string) string {
	if before == after {
		return ""
	}
	return cmp.Diff(strings.Split(before, "\n"), strings.Split(after, "\n"))
}

func writeSysctls(b *strings.Builder) error {
	fmt.Fprintln(b, "# sysctl net")
	for _, tree := range sysctlTrees {
		dirs, err := filepath.Glob("/proc/sys/net/" + tree)
		if err != nil {
			return fmt.Errorf("list sysctls: %w", err)
		}
		for _, dir := range dirs {
			if err := writeSysctlsOf(b, dir); errors.Is(err, os.ErrNotExist) { // of a link that was deleted just now
				continue
			} else if err != nil {
				return fmt.Errorf("read sysctls: %w", err)
			}
		}
	}
	return nil
}

// writeSysctlsOf asks the kernel as little as it can: there are hundreds.
func writeSysctlsOf(b *strings.Builder, path string) error {
	dir, err := os.Open(path)
	if err != nil {
		return err
	}
	defer dir.Close()
	names, err := dir.Readdirnames(-1)
	if err != nil {
		return err
	}
	slices.Sort(names)
	value := make([]byte, 4096)
	for _, name := range names {
		// Who reads these while anybody in the system changes a link has the kernel try
		// again and again, as long as that takes (restart_syscall, net/ipv6/addrconf.c).
		// ip(8) shows each link's mode, which a secret changes.
		if name == "addr_gen_mode" || name == "stable_secret" {
			continue
		}
		fd, err := unix.Openat(int(dir.Fd()), name, unix.O_RDONLY|unix.O_CLOEXEC, 0)
		if err != nil {
			continue // write-only
		}
		n, err := unix.Read(fd, value)
		_ = unix.Close(fd)
		if err != nil {
			continue
		}
		fmt.Fprintf(b, "%s/%s = %s\n", strings.TrimPrefix(path, "/proc/sys/"), name, bytes.TrimSpace(value[:n]))
	}
	return nil
}

// stableJSON returns the JSON documents of a witness without what ticks.
func stableJSON(out string) ([]string, error) {
	dec := json.NewDecoder(strings.NewReader(out))
	dec.UseNumber()
	var texts []string
	for {
		var doc any
		err := dec.Decode(&doc)
		if errors.Is(err, io.EOF) {
			return texts, nil
		}
		if err != nil {
			return nil, err
		}
		text, err := json.MarshalIndent(stable(doc), "", " ")
		if err != nil {
			return nil, err
		}
		texts = append(texts, string(text))
	}
}

// stable returns a decoded JSON value without what ticks.
func stable(value any) any {
	switch v := value.(type) {
	case []any:
		for i := range v {
			v[i] = stable(v[i])
		}
	case map[string]any:
		for key, field := range v {
			if kept, ok := stableField(key, field); ok {
				v[key] = kept
			} else {
				delete(v, key)
			}
		}
	}
	return value
}

// stableField returns what is kept of an object's field, false for nothing.
func stableField(key string, field any) (any, bool) {
	_, isNumber := field.(json.Number)
	switch key {
	case "hello_timer", "tcn_timer", "topology_change_timer", "gc_timer",
		"hold_timer", "message_age_timer", "forward_delay_timer":
		return nil, false
	case "metainfo": // nft's own version
		return nil, false
	case "handle": // nft counts up; a queueing discipline's is text and stays
		return field, !isNumber
	case "packets", "bytes", "used": // nft's counters and quotas
		return nil, !isNumber
	case "valid_life_time", "preferred_life_time":
		return lifetime(field), true
	case "expires": // of a route, or of an nft set's element
		return "finite", true
	}
	return stable(field), true
}

// lifetime tells only which kind a lifetime in seconds is.
func lifetime(seconds any) any {
	switch seconds {
	case json.Number("4294967295"):
		return "forever"
	case json.Number("0"):
		return "expired"
	}
	return "finite"
}
