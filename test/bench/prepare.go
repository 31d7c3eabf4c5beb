package main

import (
	"bytes"
	"context"
	_ "embed"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/virt-launcher-net/virt-launcher-net/internal/podtest"
)

// prepareScript does with ip(8), bridge(8), nft(8) and dnsmasq what the program
// does by netlink.
//
//go:embed prepare.sh
var prepareScript []byte

// measureMemory is what the built programs take after a guest has got its
// lease.
func (b bench) measureMemory(ctx context.Context, r *result) error {
	for _, built := range []struct{ name, binary string }{
		{"serve, built without cgo", b.static},
		{"serve, built with the libvirt binding", b.binary},
	} {
		mib, err := b.memoryOf(ctx, built.binary)
		if err != nil {
			return fmt.Errorf("%s: %w", built.name, err)
		}
		r.memory = append(r.memory, row{built.name, []float64{mib}})
	}
	return nil
}

func (b bench) memoryOf(ctx context.Context, binary string) (_ float64, err error) {
	p, err := newPod(ctx)
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, p.close()) }()
	if _, err := p.Pod.Pod.Output(ctx, binary, p.args("prepare")...); err != nil {
		return 0, err
	}
	cmd, err := p.serve(ctx, binary, "serve")
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, end(cmd)) }()
	guest, err := podtest.StartGuest(ctx, p.Pod.Pod, "tap-"+p.Interface, p.MAC)
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, guest.Close()) }()
	if _, err := guest.Udhcpc(ctx); err != nil {
		return 0, err
	}
	return rss(cmd.Process.Pid)
}

// pod is a pod of flannel's and a directory for what a program keeps.
type pod struct {
	*podtest.Pod
	dir string
}

func newPod(ctx context.Context) (*pod, error) {
	dir, err := os.MkdirTemp("/dev/shm", "bench-") // as /run: in memory
	if err != nil {
		return nil, err
	}
	p, err := podtest.BuildPod(ctx, podtest.Flannel)
	if err == nil {
		err = podtest.WaitSettled(ctx, p.Pod)
	}
	if err != nil {
		return nil, errors.Join(err, os.RemoveAll(dir))
	}
	return &pod{p, dir}, nil
}

func (p *pod) close() error { return errors.Join(p.Close(), os.RemoveAll(p.dir)) }

func (p *pod) args(verb ...string) []string {
	return append(verb, "--state-dir", filepath.Join(p.dir, "state"), "--log-level", "error")
}

// serve starts the program and returns when a guest could boot.
func (p *pod) serve(ctx context.Context, binary string, verb ...string) (*exec.Cmd, error) {
	ready, stdout, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	cmd := p.Pod.Pod.Command(ctx, binary, p.args(verb...)...)
	var stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = stdout, &stderr
	err = cmd.Start()
	stdout.Close()
	if err != nil {
		return nil, errors.Join(err, ready.Close())
	}
	_, err = ready.Read(make([]byte, 4096))
	if err != nil {
		return nil, errors.Join(fmt.Errorf("%s: %w", strings.Join(verb, " "), err), ready.Close(), cmd.Wait(), errors.New(stderr.String()))
	}
	go func() { // what it prints after that must not end it
		_, _ = io.Copy(io.Discard, ready)
		_ = ready.Close()
	}()
	return cmd, nil
}

func end(cmd *exec.Cmd) error {
	return errors.Join(cmd.Process.Signal(unix.SIGTERM), cmd.Wait())
}

// way is one to prepare a pod; once tells how long it took.
type way struct {
	name string
	once func(ctx context.Context, p *pod) (time.Duration, error)
}

// comparePrepare prepares pods in turn by the program and by the script.
func (b bench) comparePrepare(ctx context.Context, r *result) error {
	ways := []way{
		{"prepare, built without cgo", func(ctx context.Context, p *pod) (time.Duration, error) { return prepare(ctx, p, b.static) }},
		{"prepare, built with the libvirt binding", func(ctx context.Context, p *pod) (time.Duration, error) { return prepare(ctx, p, b.binary) }},
		{"script: ip, bridge, nft", func(ctx context.Context, p *pod) (time.Duration, error) { return script(ctx, p, false) }},
		{"run, built without cgo, until a guest could boot", func(ctx context.Context, p *pod) (time.Duration, error) { return prepareAndServe(ctx, p, b.static) }},
		{"script and dnsmasq, until it serves", func(ctx context.Context, p *pod) (time.Duration, error) { return script(ctx, p, true) }},
	}
	took := make([][]float64, len(ways))
	for round := range b.prepares {
		if err := prepareRound(ctx, ways, round, took); err != nil {
			return err
		}
	}
	if b.prepares == 0 {
		return nil
	}
	for i, way := range ways {
		r.prepares = append(r.prepares, row{way.name, []float64{quantile(took[i], 0.5), quantile(took[i], 0.9)}})
	}
	return nil
}

// prepareRound goes each way once. All pods are built before and closed after:
// the kernel tears namespaces down under the lock that preparing needs.
func prepareRound(ctx context.Context, ways []way, round int, took [][]float64) (err error) {
	pods, errs := make([]*pod, len(ways)), make([]error, len(ways))
	var building sync.WaitGroup
	for i := range ways {
		building.Go(func() { pods[i], errs[i] = newPod(ctx) })
	}
	building.Wait()
	defer func() {
		for _, p := range pods {
			if p != nil {
				err = errors.Join(err, p.close())
			}
		}
	}()
	if err := errors.Join(errs...); err != nil {
		return err
	}
	for i := range ways {
		i = (i + round) % len(ways) // nobody is always first
		t, err := ways[i].once(ctx, pods[i])
		if err != nil {
			return fmt.Errorf("%s: %w", ways[i].name, err)
		}
		took[i] = append(took[i], 1000*t.Seconds())
	}
	return nil
}

func prepare(ctx context.Context, p *pod, binary string) (time.Duration, error) {
	start := time.Now()
	_, err := p.Pod.Pod.Output(ctx, binary, p.args("prepare")...)
	return time.Since(start), err
}

func prepareAndServe(ctx context.Context, p *pod, binary string) (time.Duration, error) {
	start := time.Now()
	cmd, err := p.serve(ctx, binary, "run", "--no-check")
	if err != nil {
		return 0, err
	}
	return time.Since(start), end(cmd)
}

// script does the same by hand, and serves by dnsmasq if it is to.
func script(ctx context.Context, p *pod, serve bool) (time.Duration, error) {
	path, pidFile := filepath.Join(p.dir, "prepare.sh"), filepath.Join(p.dir, "pid")
	if err := os.WriteFile(path, prepareScript, 0o755); err != nil {
		return 0, err
	}
	gateway := ""
	if serve {
		gateway = p.Gateway.String()
	}
	cmd := p.Pod.Pod.Command(ctx, path, p.MAC.String(), p.IP.String(), gateway)
	cmd.Env = append(os.Environ(), "PID="+pidFile)
	start := time.Now()
	if out, err := cmd.CombinedOutput(); err != nil {
		return 0, fmt.Errorf("%w\n%s", err, out)
	}
	took := time.Since(start)
	if !serve {
		return took, nil
	}
	text, err := os.ReadFile(pidFile)
	if err != nil {
		return 0, fmt.Errorf("find dnsmasq: %w", err)
	}
	pid, err := strconv.Atoi(strings.TrimSpace(string(text)))
	if err != nil {
		return 0, fmt.Errorf("find dnsmasq: %w", err)
	}
	return took, unix.Kill(pid, unix.SIGTERM)
}
