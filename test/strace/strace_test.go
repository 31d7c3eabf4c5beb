package main

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
	"sync"
	"testing"

	"github.com/virt-launcher-net/virt-launcher-net/internal/podtest"
)

// changing are the system calls by which prepare and restore change anything.
var changing = []string{"sendto", "sendmsg", "ioctl", "write", "fsync", "renameat", "unlinkat"}

// patient is a pod on which the program is run again and again.
type patient struct {
	t        *testing.T
	pod      *podtest.Pod
	stateDir string
	original string
}

func newPatient(t *testing.T) *patient {
	pod := podtest.NewPod(t, podtest.CalicoDual)
	return &patient{t, pod, filepath.Join(t.TempDir(), "state"), podtest.TakeSnapshot(t, pod.NS)}
}

// process is the program as a process of its own. All its work is done in one
// thread, that which has entered the pod.
func (p *patient) process(wrap []string, verb string, args ...string) (stderr string, err error) {
	line := append(append([]string{}, wrap...), podtest.Built(p.t, "virt-launcher-net"), verb, "--netns", p.pod.Path(), "--state-dir", p.stateDir)
	line = append(line, args...)
	cmd := exec.CommandContext(p.t.Context(), line[0], line[1:]...)
	var b bytes.Buffer
	cmd.Stderr = &b
	err = cmd.Run()
	return b.String(), err
}

// run must succeed; it returns what was logged.
func (p *patient) run(verb string) string {
	p.t.Helper()
	stderr, err := p.process(nil, verb)
	if err != nil {
		p.t.Fatalf("%s: %v: %s", verb, err, stderr)
	}
	return stderr
}

// tampered runs the program while strace(1) meddles with the nth call of a kind
// that the thread makes. done tells that there were fewer.
func (p *patient) tampered(verb, call, how string, n int) (stderr string, done bool, err error) {
	trace := filepath.Join(p.t.TempDir(), "trace")
	wrap := []string{"strace"}
	if !strings.HasPrefix(how, "signal") { // which does not go together
		wrap = append(wrap, "--seccomp-bpf")
	}
	stderr, err = p.process(append(wrap,
		"-f", "-o", trace, "-e", "trace="+call, "-e", fmt.Sprintf("inject=%s:%s:when=%d", call, how, n),
	), verb)
	if err == nil {
		b, e := os.ReadFile(trace)
		if e != nil {
			p.t.Fatal(e)
		}
		done = !strings.Contains(string(b), "INJECTED")
	}
	return stderr, done, err
}

func (p *patient) same(at string) {
	p.t.Helper()
	if d := podtest.Diff(p.original, podtest.TakeSnapshot(p.t, p.pod.NS)); d != "" {
		p.t.Fatalf("%s:\n%s", at, d)
	}
}

// eachCall runs a test on prepare and on restore, with each kind of call.
func eachCall(t *testing.T, test func(p *patient, verb, call string)) {
	for _, verb := range []string{"prepare", "restore"} {
		for _, call := range changing {
			t.Run(verb+" "+call, func(t *testing.T) {
				t.Parallel()
				test(newPatient(t), verb, call)
			})
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
				if n == 1 && call == "sendto" {
					p.t.Errorf("%s was never killed", verb)
				}
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
			stderr, done, err := p.tampered(verb, call, "error=ENOMEM", n)
			if done {
				break
			}
			at := fmt.Sprintf("%s %d of %s failed", call, n, verb)
			if strings.Contains(stderr, "netpollBreak") { // it was the Go runtime's own, which ends it
				p.run(other)
				continue
			}
			if exit := (*exec.ExitError)(nil); err != nil && (!errors.As(err, &exit) || exit.ExitCode() != exitFailed) {
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

// numbered is what a link that is made anew shows differently: its index, and
// the name of whatever has, in this namespace, the index of a peer in another.
var numbered = regexp.MustCompile(`"(ifindex|link)": .*`)

// prepared is a snapshot in which a link that was made anew is as it was: new
// ones come last in the kernel's lists.
func (p *patient) prepared() string {
	lines := strings.Split(numbered.ReplaceAllString(podtest.TakeSnapshot(p.t, p.pod.NS), ""), "\n")
	slices.Sort(lines)
	return strings.Join(lines, "\n")
}

// Of two at once one waits for the other and finds nothing to do.
func TestTwoAtOnce(t *testing.T) {
	t.Parallel()
	p := newPatient(t)
	var both sync.WaitGroup
	for range 2 {
		both.Go(func() {
			if stderr, err := p.process(nil, "prepare"); err != nil {
				t.Errorf("prepare: %v: %s", err, stderr)
			}
		})
	}
	both.Wait()
}
