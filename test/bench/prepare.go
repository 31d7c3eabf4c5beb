package main

import (
	"bytes"
	"context"
	_ "embed"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os/exec"
	"path/filepath"
	"time"

	"github.com/virt-launcher-net/virt-launcher-net/internal/podtest"
	"github.com/virt-launcher-net/virt-launcher-net/pkg/prestart" //nolint:depguard // the start of a process would be measured
)

// prepareScript does with ip(8), bridge(8), nft(8) and dnsmasq what the program
// does by netlink.
//
//go:embed prepare.sh
var prepareScript []byte

// measureMemory is what the built programs take after a guest has got its
// lease.
func (b bench) measureMemory(ctx context.Context, r *result) (err error) {
	builds := []struct{ name, binary string }{
		{"serve, built without cgo", b.static},
		{"serve, built with the libvirt binding", b.binary},
	}
	s, err := newSite(ctx, len(builds))
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, s.close()) }()
	for i, built := range builds {
		mib, err := s.pods[i].memoryOf(ctx, built.binary)
		if err != nil {
			return fmt.Errorf("%s: %w", built.name, err)
		}
		r.memory = append(r.memory, row{built.name, []float64{mib}})
	}
	return nil
}

func (p *pod) memoryOf(ctx context.Context, binary string) (_ float64, err error) {
	if _, err := p.command(ctx, binary, p.args("prepare")...); err != nil {
		return 0, err
	}
	serving, err := p.run(ctx, binary, "serve")
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, serving.end()) }()
	if err := serving.wait(); err != nil {
		return 0, err
	}
	guest, err := podtest.StartGuest(ctx, p.ns, "tap-"+podLink, p.mac)
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, guest.Close()) }()
	if _, err := guest.Udhcpc(ctx); err != nil {
		return 0, err
	}
	return rss(serving.pid)
}

// command runs a command in the pod until it has ended, and tells how long
// that took.
func (p *pod) command(ctx context.Context, name string, args ...string) (time.Duration, error) {
	cmd := exec.CommandContext(ctx, name, args...)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	began, err := start(ctx, p.ns, cmd)
	if err != nil {
		return 0, err
	}
	if err := cmd.Wait(); err != nil {
		return 0, fmt.Errorf("%s: %w\n%s", name, err, stderr.String())
	}
	return time.Since(began), nil
}

// Ways to prepare a pod.
const (
	bareCalls         = "in a process: the bare netlink calls"
	inProcess         = "in a process: prepare"
	inProcessRedirect = "in a process: prepare, by redirect"
	startAlone        = "`version`: the program's start and end alone"
	prepareStatic     = "`prepare`, built without cgo"
	prepareRedirect   = "`prepare --datapath redirect`, built without cgo"
	prepareLibvirt    = "`prepare`, built with the libvirt binding"
	scriptAlone       = "script: ip, bridge, nft"
	runStatic         = "`run --no-check`, built without cgo, until a guest could boot"
	runChecked        = "`run`, the same with its check"
	scriptServing     = "script and dnsmasq, until it serves"
)

// way is one of them; once tells how long it took.
type way struct {
	name string
	once func(ctx context.Context, p *pod) (time.Duration, error)
}

func (b bench) ways(r *result) []way {
	command := func(binary string, verb ...string) func(context.Context, *pod) (time.Duration, error) {
		return func(ctx context.Context, p *pod) (time.Duration, error) {
			return p.command(ctx, binary, p.args(verb...)...)
		}
	}
	run := func(verb ...string) func(context.Context, *pod) (time.Duration, error) {
		return func(ctx context.Context, p *pod) (time.Duration, error) {
			return untilServing(p.run(ctx, b.static, verb...))
		}
	}
	return []way{
		{bareCalls, func(_ context.Context, p *pod) (time.Duration, error) { return p.inProcess(prepareBare) }},
		{inProcess, func(ctx context.Context, p *pod) (time.Duration, error) {
			return p.inProcess(p.hook(ctx, nil, byBridge))
		}},
		{inProcessRedirect, func(ctx context.Context, p *pod) (time.Duration, error) {
			return p.inProcess(p.hook(ctx, nil, byRedirect))
		}},
		{stepwise, func(ctx context.Context, p *pod) (time.Duration, error) { return r.steps.time(ctx, p, byBridge) }},
		{stepwise, func(ctx context.Context, p *pod) (time.Duration, error) {
			return r.redirectSteps.time(ctx, p, byRedirect)
		}},
		{startAlone, func(ctx context.Context, p *pod) (time.Duration, error) { return p.command(ctx, b.static, "version") }},
		{prepareStatic, command(b.static, "prepare")},
		{prepareRedirect, command(b.static, append([]string{"prepare"}, byRedirect.flags()...)...)},
		{prepareLibvirt, command(b.binary, "prepare")},
		{scriptAlone, func(ctx context.Context, p *pod) (time.Duration, error) { return untilServing(p.script(ctx, "")) }},
		{runStatic, run("run", "--no-check")},
		{runChecked, run("run")},
		{scriptServing, func(ctx context.Context, p *pod) (time.Duration, error) {
			return untilServing(p.script(ctx, p.gateway.String()))
		}},
	}
}

// comparePrepare prepares pods each way in turn. All pods are built before and
// closed after: the kernel does both under the lock that preparing needs.
func (b bench) comparePrepare(ctx context.Context, r *result) (err error) {
	ways := b.ways(r)
	s, err := newSite(ctx, b.prepares*len(ways))
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, s.close()) }()
	took := make([][]float64, len(ways))
	for round := range b.prepares {
		for i := range ways {
			i = (i + round) % len(ways) // nobody is always first
			t, err := ways[i].once(ctx, s.take(1)[0])
			if err != nil {
				return fmt.Errorf("%s: %w", ways[i].name, err)
			}
			took[i] = append(took[i], millis(t))
		}
	}
	for i, way := range ways {
		if way.name != stepwise {
			r.prepares = append(r.prepares, row{way.name, []float64{quantile(took[i], 0.5), quantile(took[i], 0.9)}})
		}
	}
	return nil
}

// untilServing is how long a server that was started takes until it serves.
func untilServing(s *server, err error) (time.Duration, error) {
	if err != nil {
		return 0, err
	}
	err = s.wait()
	return s.took, errors.Join(err, s.end())
}

// inProcess does something in the pod, without a process of its own.
func (p *pod) inProcess(prepare func(p *pod, index int) error) (took time.Duration, err error) {
	err = p.ns.Do(func() error {
		link, err := net.InterfaceByName(podLink)
		if err != nil {
			return err
		}
		began := time.Now()
		err = prepare(p, link.Index)
		took = time.Since(began)
		return err
	})
	return took, err
}

// hook prepares as the program does.
func (p *pod) hook(ctx context.Context, log *slog.Logger, w wiring) func(*pod, int) error {
	return func(*pod, int) error {
		h := prestart.Hook{StateDir: filepath.Join(p.dir, "state"), Log: log}
		h.Network.Datapath, h.Network.NoGuard = w.datapath, !w.guard
		if err := h.Network.PodPorts.UnmarshalText([]byte(w.podPorts)); err != nil {
			return err
		}
		_, err := h.Prepare(ctx)
		return err
	}
}
