package main

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"golang.org/x/sync/errgroup"
)

// stage is so many pods that start at once, and how often.
type stage struct{ pods, rounds int }

// stages are the pods at once; few of them often, for their quantiles.
func (b bench) stages() []stage {
	var stages []stage
	for _, n := range []int{1, 10, 100, 300} {
		if n <= b.pods {
			stages = append(stages, stage{n, max(1, min(10, 50/n))})
		}
	}
	return stages
}

// scaleResult is what so many pods at once took one way.
type scaleResult struct {
	name     string
	pods     int
	took     []float64 // ms, each pod's from the start of its process
	perPod   []float64 // ms, each round's total by its pods
	cpu      []float64 // ms, each pod's
	rss, pss []float64 // MiB
	private  []float64 // MiB
}

// Ways at scale.
const (
	scaleRun    = "`run`"
	scaleScript = "script"
)

// measureScale starts many pods at once, the program's and the script's in
// turn, on a node with as many pods as that takes.
func (b bench) measureScale(ctx context.Context, r *result) error {
	for _, st := range b.stages() {
		if err := b.measureStage(ctx, r, st); err != nil {
			return fmt.Errorf("%d pods at once: %w", st.pods, err)
		}
	}
	return nil
}

func (b bench) measureStage(ctx context.Context, r *result, st stage) (err error) {
	s, err := newSite(ctx, 2*st.pods*st.rounds)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, s.close()) }()
	run := &scaleResult{name: scaleRun, pods: st.pods}
	script := &scaleResult{name: scaleScript, pods: st.pods}
	r.scale = append(r.scale, run, script)
	for range st.rounds {
		if err := run.round(s.take(st.pods), func(p *pod) (*server, error) { return p.run(ctx, b.static, "run", "--no-check") }); err != nil {
			return fmt.Errorf("%s: %w", run.name, err)
		}
		if err := script.round(s.take(st.pods), func(p *pod) (*server, error) { return p.script(ctx, p.gateway.String()) }); err != nil {
			return fmt.Errorf("%s: %w", script.name, err)
		}
	}
	return nil
}

// round starts a server in each pod, as fast as one process can start others,
// and ends them once all serve.
func (r *scaleResult) round(pods []*pod, start func(*pod) (*server, error)) (err error) {
	var servers []*server
	defer func() {
		var ending errgroup.Group
		for _, s := range servers {
			ending.Go(s.end)
		}
		if endErr := ending.Wait(); err == nil {
			err = endErr
		}
	}()
	var waiting errgroup.Group
	for _, p := range pods {
		s, err := start(p)
		if err != nil {
			waiting.Go(func() error { return err })
			break
		}
		servers = append(servers, s)
		waiting.Go(s.wait)
	}
	if err := waiting.Wait(); err != nil {
		return err
	}
	return r.note(servers)
}

// note takes down what the servers took, all of which serve.
func (r *scaleResult) note(servers []*server) error {
	last := slices.MaxFunc(servers, func(a, b *server) int { return a.ready().Compare(b.ready()) }).ready()
	r.perPod = append(r.perPod, millis(last.Sub(servers[0].began))/float64(len(servers)))
	for _, s := range servers {
		took, err := s.cpu()
		if err != nil {
			return err
		}
		resident, err := rss(s.pid)
		if err != nil {
			return err
		}
		share, err := pss(s.pid)
		if err != nil {
			return err
		}
		own, err := private(s.pid)
		if err != nil {
			return err
		}
		r.took = append(r.took, millis(s.took))
		r.cpu = append(r.cpu, millis(took))
		r.rss, r.pss, r.private = append(r.rss, resident), append(r.pss, share), append(r.private, own)
	}
	return nil
}
