package main

import (
	"bytes"
	"flag"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/cobra/doc"
)

var update = flag.Bool("update", false, "write docs/cli.md and docs/man")

// The reference of the command line and the manual pages are what the help texts
// say. Written with -update.
func TestReference(t *testing.T) {
	root := newRoot(nil)
	root.InitDefaultCompletionCmd()
	files := map[string][]byte{"cli.md": reference(t, root)}
	for _, c := range commands(root) {
		var page bytes.Buffer
		date := time.Date(2026, time.November, 1, 0, 0, 0, 0, time.UTC)
		header := &doc.GenManHeader{Section: "1", Date: &date, Source: "virt-launcher-net", Manual: "virt-launcher-net manual"}
		if err := doc.GenMan(c, header, &page); err != nil {
			t.Fatal(err)
		}
		files["man/"+strings.ReplaceAll(c.CommandPath(), " ", "-")+".1"] = page.Bytes()
	}
	dir := filepath.Join("..", "..", "docs")
	there, err := filepath.Glob(filepath.Join(dir, "man", "*"))
	if err != nil {
		t.Fatal(err)
	}
	for _, path := range there {
		name := "man/" + filepath.Base(path)
		if _, ok := files[name]; ok {
			continue
		}
		if !*update {
			t.Errorf("%s is of a verb that is not there", name)
		} else if err := os.Remove(path); err != nil {
			t.Fatal(err)
		}
	}
	for name, want := range files {
		path := filepath.Join(dir, name)
		if *update {
			if err := os.WriteFile(path, want, 0o644); err != nil { //nolint:gosec // documentation
				t.Fatal(err)
			}
			continue
		}
		if got, err := os.ReadFile(path); err != nil || !bytes.Equal(got, want) {
			t.Errorf("docs/%s is not what the help says (%v): go test ./cmd/virt-launcher-net -run Reference -update", name, err)
		}
	}
}

// commands returns a command and those below it that have a help of their own.
func commands(c *cobra.Command) []*cobra.Command {
	c.DisableAutoGenTag = true
	all := []*cobra.Command{c}
	for _, sub := range c.Commands() {
		if sub.Name() != "help" && !sub.Hidden && c.Name() != "completion" {
			all = append(all, commands(sub)...)
		}
	}
	return all
}

// reference is one page with the help of every command.
func reference(t *testing.T, root *cobra.Command) []byte {
	t.Helper()
	var page bytes.Buffer
	page.WriteString("# Command line\n\nThis is what `virt-launcher-net VERB --help` says. " +
		"Exit codes: 0 done, 1 failed, 2 the command line is wrong.\n\n")
	anchor := func(file string) string {
		return "#" + strings.ReplaceAll(strings.TrimSuffix(file, ".md"), "_", "-")
	}
	for _, c := range commands(root) {
		if err := doc.GenMarkdownCustom(c, &page, anchor); err != nil {
			t.Fatal(err)
		}
	}
	lines := strings.Split(strings.TrimRight(page.String(), "\n"), "\n")
	lines = slices.DeleteFunc(lines, func(l string) bool { // the page does not have the help of each shell
		return strings.HasPrefix(l, "* [virt-launcher-net completion ")
	})
	for i, l := range lines {
		lines[i] = strings.TrimRight(l, " \t")
	}
	return []byte(strings.Join(lines, "\n") + "\n")
}
