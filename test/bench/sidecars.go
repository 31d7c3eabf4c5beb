package main

import (
	"context"

	"golang.org/x/sync/errgroup"
)

// bySidecars starts the program in each pod.
func (b bench) bySidecars(ctx context.Context, s *site, n *nodeResult) (pids []int, end func() error, err error) {
	servers := make([]*server, len(s.pods))
	index := map[*pod]int{}
	for i, p := range s.pods {
		index[p] = i
	}
	end = func() error {
		var ending errgroup.Group
		for _, s := range servers {
			if s != nil {
				ending.Go(s.end)
			}
		}
		return ending.Wait()
	}
	err = n.timed(s.pods, func(p *pod) error {
		s, err := p.run(ctx, b.static, "run", "--no-check")
		if err != nil {
			return err
		}
		servers[index[p]] = s
		return s.wait()
	})
	for _, s := range servers {
		if s != nil {
			pids = append(pids, s.pid)
		}
	}
	return pids, end, err
}
