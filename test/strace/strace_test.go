// Package strace has strace(1) kill the built program at, and fail, the system
// calls by which prepare and restore change something.
package strace

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/virt-launcher-net/virt-launcher-net/internal/podtest"
	"github.com/virt-launcher-net/virt-launcher-net/internal/podtest/launchtest"
)

// changing are the system calls by which a verb changes anything. It makes each of
// them, or the test fails.
var changing = map[string][]string{
	"prepare": {"sendto", "ioctl", "bpf", "write", "fsync", "renameat", "mkdirat"},
	"restore": {"sendto", "write", "fsync", "renameat", "unlinkat"},
}

// patient is a pod on which the program is run again and again.
type patient struct {
	*launchtest.Program
	t        *testing.T
	pod      *podtest.Pod
	original string
}

func newPatient(t *testing.T, datapath string) *patient {
	pod := podtest.NewPod(t, podtest.CalicoDual)
	p := &patient{launchtest.NewProgram(t, pod), t, pod, podtest.TakeSnapshot(t, pod.NS)}
	p.Datapath = datapath
	return p
}

// run runs a verb that must succeed, and returns what it logged.
func (p *patient) run(verb string) string {
	p.t.Helper()
	cmd := p.Command(p.t.Context(), verb)
	var log bytes.Buffer
	cmd.Stderr = &log
	if err := cmd.Run(); err != nil {
		p.t.Fatalf("%s: %v: %s", verb, err, &log)
	}
	if text := log.String(); strings.Contains(text, "msg=prepared") && !strings.Contains(text, " datapath="+p.Datapath+" ") {
		p.t.Fatalf("not by the datapath %s: %s", p.Datapath, text)
	}
	return log.String()
}

// tampered runs the program while strace(1) meddles with the nth call of a kind
// that a thread makes: all of the program's work is done in one, that which has
// entered the pod. done tells that there were fewer.
func (p *patient) tampered(verb, call, how string, n int) (log string, done bool, err error) {
	trace := filepath.Join(p.t.TempDir(), "trace")
	args := []string{"-f", "-o", trace, "-e", "trace=" + call, "-e", fmt.Sprintf("inject=%s:%s:when=%d", call, how, n)}
	if !strings.HasPrefix(how, "signal") { // which does not go together
		args = append(args, "--seccomp-bpf")
	}
	cmd := p.pod.Node.Command(p.t.Context(), "strace", slices.Concat(args, []string{p.Binary}, p.Args(verb))...)
	var b bytes.Buffer
	cmd.Stderr = &b
	err = cmd.Run()
	if err == nil {
		text, e := os.ReadFile(trace)
		if e != nil {
			p.t.Fatal(e)
		}
		done = !bytes.Contains(text, []byte("INJECTED"))
	}
	if n == 1 && done {
		p.t.Fatalf("%s does not call %s: nothing is proved", verb, call)
	}
	return b.String(), done, err
}

func (p *patient) same(at string) {
	p.t.Helper()
	if d := podtest.Diff(p.original, podtest.TakeSnapshot(p.t, p.pod.NS)); d != "" {
		p.t.Fatalf("%s:\n%s", at, d)
	}
}

// datapaths are all that the program has.
var datapaths = []string{podtest.SwitchPath, "redirect"}

// eachCall runs a test on prepare and on restore, by each datapath and with each kind
// of call.
func eachCall(t *testing.T, test func(p *patient, verb, call string)) {
	if os.Getenv("VLN_TEST_LONG") == "" {
		t.Skip("takes minutes: run make test-long")
	}
	for _, datapath := range datapaths {
		for verb, calls := range changing {
			for _, call := range calls {
				t.Run(datapath+"/"+verb+" "+call, func(t *testing.T) {
					t.Parallel()
					test(newPatient(t, datapath), verb, call)
				})
			}
		}
	}
}

// Killed right before any call that changes something, which is right after the
// one before: prepare completes it, and restore undoes it.
func TestKilledAtEachCall(t *testing.T) {
	t.Parallel()
	eachCall(t, func(p *patient, verb, call string) {
		for n := 1; ; n++ {
			if verb == "restore" {
				p.run("prepare")
			}
			if _, _, err := p.tampered(verb, call, "signal=KILL", n); err == nil {
				break
			}
			at := fmt.Sprintf("%s killed at %s %d", verb, call, n)
			if n%2 == 0 {
				p.run("prepare")
				if again := p.run("prepare"); strings.Contains(again, "msg=prepared") {
					p.t.Fatalf("%s: prepare left something to do: %s", at, again)
				}
			}
			p.run("restore")
			p.same(at + ", then restored")
		}
		p.run("restore")
		p.same("at the end")
	})
}

// Whatever call fails, the pod is as before, and the error says what failed and
// why.
func TestFailureOfEachCall(t *testing.T) {
	t.Parallel()
	eachCall(t, func(p *patient, verb, call string) {
		other := map[string]string{"prepare": "restore", "restore": "prepare"}[verb]
		p.run(other)
		before := p.prepared()
		for n := 1; ; n++ {
			if verb == "prepare" { // as the first time
				if err := os.RemoveAll(p.StateDir); err != nil {
					p.t.Fatal(err)
				}
			}
			stderr, done, err := p.tampered(verb, call, "error=ENOMEM", n)
			if done {
				break
			}
			at := fmt.Sprintf("%s %d of %s failed", call, n, verb)
			if strings.Contains(stderr, "netpollBreak") { // it was the Go runtime's own, which ends it
				p.run(other)
				continue
			}
			if exit := (*exec.ExitError)(nil); err != nil && (!errors.As(err, &exit) || exit.ExitCode() != 1) {
				p.t.Fatalf("%s: %v: %s", at, err, stderr)
			}
			if err != nil && stderr != "" && !strings.Contains(stderr, "cannot allocate memory") {
				p.t.Errorf("%s, but not why: %s", at, stderr)
			}
			if err == nil || strings.Contains(stderr, "msg="+verb+"d ") {
				// It was tried again, or is a call that does not matter to
				// the pod, such as that which removes the record in the end.
				p.run(other)
			}
			if d := podtest.Diff(before, p.prepared()); d != "" {
				p.t.Fatalf("%s: %s:\n%s", at, stderr, d)
			}
		}
		p.run("restore")
		p.same("at the end")
	})
}

// numbered is what a link that is made anew shows differently: its index, the name of
// whatever has, in this namespace, the index of a peer in another, and the checksums of
// rules that send to it.
var numbered = regexp.MustCompile(`"(ifindex|link)": .*|"comment": "[0-9a-f]{16}"`)

// prepared is a snapshot in which a link that was made anew is as it was: new
// ones come last in the kernel's lists.
func (p *patient) prepared() string {
	lines := strings.Split(numbered.ReplaceAllString(podtest.TakeSnapshot(p.t, p.pod.NS), ""), "\n")
	slices.Sort(lines)
	return strings.Join(lines, "\n")
}

// An error of the kernel's is not taken for a kernel without nftables: the tables
// of a prepared pod would be made once more.
func TestUnreadableTables(t *testing.T) {
	t.Parallel()
	for _, datapath := range datapaths {
		t.Run(datapath, func(t *testing.T) {
			t.Parallel()
			unreadableTables(newPatient(t, datapath))
		})
	}
}

func unreadableTables(p *patient) {
	p.run("prepare")
	before := p.prepared()
	failed := 0
	for n := 1; n < 60; n++ {
		stderr, done, err := p.tampered("prepare", "sendto", "error=EINVAL", n)
		if done {
			break
		}
		if err != nil {
			failed++
		}
		if d := podtest.Diff(before, p.prepared()); d != "" {
			p.t.Fatalf("sendto %d failed: %v: %s:\n%s", n, err, stderr, d)
		}
	}
	if failed == 0 {
		p.t.Error("prepare never failed")
	}
}
