// Command bench compares the DHCP server with others, and prepare with a shell
// script and with bare netlink calls, in one run each, alternating, and starts
// many pods at once. "make bench" runs it, as root.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"runtime"
	"slices"
	"strconv"
	"time"

	"golang.org/x/sys/unix"
)

func main() {
	if err := run(); err != nil {
		fmt.Fprintf(os.Stderr, "bench: %v\n", err)
		os.Exit(1)
	}
}

func run() error {
	b := bench{}
	flag.IntVar(&b.rounds, "rounds", 15, "how often each server has its turn")
	flag.DurationVar(&b.turn, "turn", 300*time.Millisecond, "how long a turn is")
	flag.IntVar(&b.atOnce, "at-once", 16, "exchanges under way when throughput is measured")
	flag.IntVar(&b.exchanges, "exchanges", 150, "how often each server is asked after a pause, by each protocol")
	flag.IntVar(&b.boots, "boots", 20, "how often a guest boots beside each server")
	flag.IntVar(&b.prepares, "prepares", 12, "how often a pod is prepared each way")
	flag.IntVar(&b.pods, "pods", 300, "at most so many pods at once")
	flag.StringVar(&b.binary, "binary", "build/virt-launcher-net", "the program")
	flag.StringVar(&b.static, "static", "build/bench/virt-launcher-net", "the program built without cgo")
	flag.StringVar(&b.guest, "guest", "build/guest", "the `directory` with the guest that boots")
	flag.StringVar(&b.beside, "beside", "", "another build of the `program`, asked after a pause as well")
	flag.StringVar(&b.root, "root", "build/bench/debian/root", "where Debian's servers are unpacked")
	flag.StringVar(&b.only, "only", "", "measure one `part`: servers, idle, boot, memory, prepare, datapaths, scale or node")
	docs := flag.String("docs", "", "write the tables into performance.md and the plots beside it in this `directory`")
	flag.Parse()
	switch flag.Arg(0) {
	case "ours":
		return serveOurs()
	case "canned":
		return serveCanned()
	}
	ctx, stop := signal.NotifyContext(context.Background(), unix.SIGINT, unix.SIGTERM)
	defer stop()
	if *docs != "" && b.only != "" {
		return errors.New("-docs needs all parts: leave out -only")
	}
	r, err := b.run(ctx)
	if err != nil {
		return err
	}
	text := r.markdown()
	fmt.Print(text)
	if *docs == "" {
		return nil
	}
	return writeDocs(*docs, text, map[string]string{"performance.svg": r.serversSVG(), "performance-scale.svg": r.scaleSVG()})
}

// bench is what is measured, with what.
type bench struct {
	rounds, atOnce, prepares int
	exchanges, boots, pods   int
	turn                     time.Duration
	binary, static, root     string
	beside, guest            string
	only                     string
}

// result is all that was measured.
type result struct {
	bench    bench
	servers  []*serverResult
	idle     []*idleResult
	boots    []row
	memory   []row
	prepares []row
	scale    []*scaleResult
	nodes    []*nodeResult

	steps, redirectSteps stepClock // of prepare, by the default datapath and by redirect
	datapaths            *datapathsResult
}

// serverResult is what one server did.
type serverResult struct {
	name, note string
	latencies  []time.Duration // one exchange at a time
	perSecond  float64         // of the best turn, many at once: what else runs only takes away
	exchanges  int             // many at once
	cpu        time.Duration   // for these
	rss        float64         // MiB
	lost       int
}

// row is a name and what was measured of it.
type row struct {
	name   string
	values []float64
}

func (b bench) run(ctx context.Context) (*result, error) {
	r := &result{bench: b, datapaths: &datapathsResult{}}
	for _, part := range []struct {
		name    string
		measure func(context.Context, *result) error
	}{
		{"servers", b.compareServers},
		{"idle", b.compareIdle},
		{"boot", b.compareBoots},
		{"memory", b.measureMemory},
		{"prepare", b.comparePrepare},
		{"datapaths", b.compareDatapaths},
		{"scale", b.measureScale},
		{"node", b.measureNode},
	} {
		if b.only != "" && b.only != part.name {
			continue
		}
		if err := part.measure(ctx, r); err != nil {
			return nil, err
		}
	}
	return r, nil
}

// clientCPU is the client's when it has to keep a server busy.
const clientCPU = 0

// serverCPU is the servers', and the client's while it has one exchange at a
// time: to wake another CPU takes longer than any of the servers.
func serverCPU() int { return runtime.NumCPU() - 1 }

// compareServers gives each server its turn in each round.
func (b bench) compareServers(ctx context.Context, r *result) (err error) {
	self, err := os.Executable()
	if err != nil {
		return fmt.Errorf("find own binary: %w", err)
	}
	var all []*running
	defer func() {
		for _, s := range all {
			err = errors.Join(err, s.close())
		}
	}()
	for _, c := range contenders(self, b.root) {
		s, err := c.run(ctx, "taskset", "-c", strconv.Itoa(serverCPU()))
		if err != nil {
			return err
		}
		all = append(all, s)
		r.servers = append(r.servers, &serverResult{name: c.name, note: c.note})
	}
	for round := range b.rounds {
		for i := range all {
			i = (i + round) % len(all) // nobody is always first
			if err := ctx.Err(); err != nil {
				return err
			}
			if err := b.turnOf(all[i], r.servers[i]); err != nil {
				return fmt.Errorf("%s: %w", all[i].name, err)
			}
		}
	}
	for i, s := range all {
		if r.servers[i].rss, err = rss(s.cmd.Process.Pid); err != nil {
			return fmt.Errorf("%s: %w", s.name, err)
		}
	}
	return nil
}

func (b bench) turnOf(s *running, r *serverResult) error {
	took, lost, err := s.client.load(b.turn, 1, serverCPU())
	if err != nil {
		return err
	}
	r.latencies = append(r.latencies, took...)
	r.lost += lost
	before, err := cpu(s.cmd.Process.Pid)
	if err != nil {
		return err
	}
	start := time.Now()
	took, lost, err = s.client.load(b.turn, b.atOnce, clientCPU)
	if err != nil {
		return err
	}
	after, err := cpu(s.cmd.Process.Pid)
	if err != nil {
		return err
	}
	r.perSecond = max(r.perSecond, float64(len(took))/time.Since(start).Seconds())
	r.exchanges += len(took)
	r.cpu += after - before
	r.lost += lost
	return nil
}

// quantile is that of unsorted values.
func quantile[T time.Duration | float64](values []T, q float64) T {
	if len(values) == 0 {
		return 0
	}
	sorted := slices.Sorted(slices.Values(values))
	return sorted[min(int(q*float64(len(sorted))), len(sorted)-1)]
}
