package main

import (
	"context"
	"errors"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/virt-launcher-net/virt-launcher-net/internal/cniconf"
	"github.com/virt-launcher-net/virt-launcher-net/internal/statedir"
	"github.com/virt-launcher-net/virt-launcher-net/pkg/agent"
	"github.com/virt-launcher-net/virt-launcher-net/pkg/check"
	"github.com/virt-launcher-net/virt-launcher-net/pkg/control"
	"github.com/virt-launcher-net/virt-launcher-net/pkg/discover"
	"github.com/virt-launcher-net/virt-launcher-net/pkg/domain"
	"github.com/virt-launcher-net/virt-launcher-net/pkg/prepare"
	"github.com/virt-launcher-net/virt-launcher-net/pkg/prestart"
)

// The library is used by programs with other flags than ours: no text of it names
// one. What the way out is called here, hints say.
func TestLibraryNamesNoFlags(t *testing.T) {
	t.Parallel()
	flag := regexp.MustCompile(`--[a-z]`)
	files := token.NewFileSet()
	for _, dir := range []string{"../../pkg", "../../internal"} {
		err := filepath.WalkDir(dir, func(path string, _ fs.DirEntry, err error) error {
			if err != nil || !strings.HasSuffix(path, ".go") || strings.HasSuffix(path, "_test.go") || strings.Contains(path, "podtest") || strings.Contains(path, "internal/settings") { // which are flags
				return err
			}
			file, err := parser.ParseFile(files, path, nil, 0)
			if err != nil {
				return err
			}
			ast.Inspect(file, func(n ast.Node) bool {
				if pair, ok := n.(*ast.KeyValueExpr); ok {
					if key, ok := pair.Key.(*ast.Ident); ok && key.Name == "Flag" { // a link's, said as such
						return false
					}
				}
				text, ok := n.(*ast.BasicLit)
				if ok && text.Kind == token.STRING && flag.MatchString(text.Value) && text.Value != `"--net"` { // Cloud Hypervisor's
					t.Errorf("%s names a flag: %s", files.Position(text.Pos()), text.Value)
				}
				return true
			})
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
	}
}

// Errors that a flag may mend are told with it, however deep they are.
func TestHints(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		verb string
		err  error
		want string
	}{
		{"run", &prestart.TimeoutError{After: time.Second}, "timed out after 1s (--timeout waits longer)"},
		{"plan", &discover.NotFoundError{Interface: "eth7"}, "--interface"},
		{"prepare", &prepare.UnusableError{Interface: "lo", Why: errors.New("it is the loopback")}, "--interface"},
		{"plan", &prepare.NameTakenError{Name: "vm", For: "tap"}, "--tap-name"},
		{"status", &prepare.UnrecordedError{Interface: "eth0"}, "--state-dir"},
		{"restore", prestart.ErrNotPrepared, "--state-dir"},
		{"run", domain.ErrDisconnected, "started again, takes it over"},
		{"plan", prestart.ErrMachine, "(--netns names it)"},
		{"check", control.ErrNobodyServes, "--state-dir"},
		{"wait", control.ErrNobodyServes, "run or serve"},
		{"run", fmt.Errorf("%w; %w", check.ErrTapInUse, domain.ErrNotRunning), "virt-launcher-net serve"},
		{"run", &prestart.CheckError{Interface: "eth0", Err: errors.New("no answer")}, "--no-check"},
		{"run", &prestart.CheckError{Interface: "eth0", Err: check.ErrTapInUse}, ""},
		{"run", context.DeadlineExceeded, ""},
		{"node status", agent.ErrNoAgent, "--state-dir"},
		{"node install", cniconf.ErrNotChained, "--watch"},
		{"node install", cniconf.ErrPending, "--cni-options and --chain"},
		{"node install", cniconf.ErrNoDirectory, "--cni-bin-dir and --cni-conf-dir"},
		{"status", &statedir.UnusableError{Doing: "list records", Err: fs.ErrPermission}, "(root may, and the user that prepared the pod; --state-dir"},
		{"prepare", &statedir.UnusableError{Doing: "make state directory", Err: fs.ErrNotExist}, "(--state-dir names"},
		// Verbs that don't have the flag.
		{"serve", &prestart.TimeoutError{After: time.Second}, ""},
		{"plug", &prestart.CheckError{Interface: "eth0", Err: errors.New("no answer")}, ""},
		{"prepare", &domain.ConnectError{}, ""},
	} {
		cmd, _, err := newRoot(strings.Fields(c.verb)).Find(strings.Fields(c.verb))
		if err != nil {
			t.Fatal(err)
		}
		text := withHints(fmt.Errorf("run: %w", errors.Join(errors.New("first"), c.err)), cmd)
		if !strings.Contains(text, c.want) || strings.Contains(text, "\n") || c.want == "" && strings.Contains(text, "--") {
			t.Errorf("%q, want %q", text, c.want)
		}
	}
}
