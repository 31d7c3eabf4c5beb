package strace

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/virt-launcher-net/virt-launcher-net/internal/podtest"
)

// plugin is a pod on which a runtime calls the CNI plugin again and again.
type plugin struct {
	t        *testing.T
	pod      *podtest.Pod
	dir      string // of all containers' state
	config   string
	original string
}

func newPlugin(t *testing.T, datapath string) *plugin {
	pod := podtest.NewPod(t, podtest.CalicoDual)
	dir := filepath.Join(t.TempDir(), "state")
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	config := fmt.Sprintf(`{"cniVersion": "1.0.0", "name": "net", "type": "virt-launcher-net", "select": "all", "stateDir": %q, "datapath": %q}`, dir, datapath)
	return &plugin{t, pod, dir, config, podtest.TakeSnapshot(t, pod.NS)}
}

// call calls the plugin, by way of a program with its arguments if some are named, and
// returns all that it printed.
func (p *plugin) call(command string, by ...string) (string, error) {
	args := append(by, podtest.Built(p.t, "virt-launcher-net"))
	cmd := p.pod.Node.Command(p.t.Context(), args[0], args[1:]...)
	cmd.Env = append(os.Environ(), "CNI_COMMAND="+command, "CNI_CONTAINERID=c1", "CNI_IFNAME=eth0", "CNI_NETNS="+p.pod.Path(), "CNI_PATH=/")
	cmd.Stdin = strings.NewReader(p.config)
	out, err := cmd.CombinedOutput()
	return string(out), err
}

func (p *plugin) must(command, at string) {
	p.t.Helper()
	if out, err := p.call(command); err != nil {
		p.t.Fatalf("%s: %s: %v: %s", at, command, err, out)
	}
}

// gone fails the test unless the pod is as before, and nothing is left of it.
func (p *plugin) gone(at string) {
	p.t.Helper()
	if d := podtest.Diff(p.original, podtest.TakeSnapshot(p.t, p.pod.NS)); d != "" {
		p.t.Fatalf("%s:\n%s", at, d)
	}
	if entries, err := os.ReadDir(p.dir); err != nil || len(entries) > 0 {
		p.t.Fatalf("%s: it is left: %v, %v", at, entries, err)
	}
}

// At whatever call that writes to the disk the plugin is killed, or fails, ADD is done by
// the next ADD and undone by DEL, and DEL is done by the next; an ADD that says that it
// failed has left nothing.
func TestPluginAtEachCall(t *testing.T) {
	t.Parallel()
	if os.Getenv("VLN_TEST_LONG") == "" {
		t.Skip("takes minutes: run make test-long")
	}
	for _, datapath := range datapaths {
		for command, calls := range map[string][]string{"ADD": {"write", "fsync", "renameat", "mkdirat"}, "DEL": {"write", "fsync", "renameat", "unlinkat"}} {
			for _, call := range calls {
				for _, how := range []string{"signal=KILL", "error=ENOSPC"} {
					t.Run(datapath+"/"+command+" "+call+" "+how, func(t *testing.T) {
						t.Parallel()
						newPlugin(t, datapath).atEachCall(command, call, how)
					})
				}
			}
		}
	}
}

func (p *plugin) atEachCall(command, call, how string) {
	trace := filepath.Join(p.t.TempDir(), "trace")
	for n := 1; ; n++ {
		at := fmt.Sprintf("%s at %s %d of %s", how, call, n, command)
		if command == "DEL" {
			p.must("ADD", at)
		}
		by := []string{"strace", "-f", "-o", trace, "-e", "trace=" + call, "-e", fmt.Sprintf("inject=%s:%s:when=%d", call, how, n)}
		if strings.HasPrefix(how, "error") {
			by = append(by, "--seccomp-bpf")
		}
		out, err := p.call(command, slices.Clone(by)...)
		text, readErr := os.ReadFile(trace)
		if readErr != nil {
			p.t.Fatal(readErr)
		}
		done := err == nil && !bytes.Contains(text, []byte("INJECTED"))
		if done && n == 1 {
			p.t.Fatalf("%s does not call %s: nothing is proved", command, call)
		}
		// A result that can't be printed is the runtime's matter, and the Go runtime ends
		// a program that can't wake it up.
		told := err != nil && strings.Contains(out, `"code": 1`)
		if told && command == "ADD" {
			p.gone(at)
		}
		if command == "ADD" && n%2 == 0 {
			p.must("ADD", at)
			p.must("ADD", at)
			p.must("CHECK", at)
		}
		p.must("DEL", at)
		p.gone(at + ", then DEL")
		if done {
			return
		}
	}
}
