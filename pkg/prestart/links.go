package prestart

import (
	"context"
	"log/slog"
	"slices"
	"sync"

	"github.com/virt-launcher-net/virt-launcher-net/pkg/prepare"
)

// missingRemedy is the way out when links are missing.
const missingRemedy = "end virt-launcher-net and run it again, which makes bridge and tap anew; " +
	"a VM whose tap was deleted must then be started again, or its NIC plugged in again; if the uplink is gone, make the pod anew"

// links keeps which links of the VM's network are missing: somebody may delete
// them, and the servers would hear of the tap only.
type links struct {
	watch *prepare.Watch
	log   *slog.Logger

	mu      sync.Mutex
	missing []string
	changed chan struct{} // closed when missing changes
}

// openLinks looks at the current network namespace. Close it.
func openLinks(log *slog.Logger, plans []prepare.Plan) (*links, error) {
	watch, err := prepare.OpenWatch(plans...)
	if err != nil {
		return nil, err
	}
	l := &links{watch: watch, log: log, changed: make(chan struct{})}
	if err := l.look(); err != nil {
		watch.Close()
		return nil, err
	}
	return l, nil
}

// look reads what is missing now, and says so if that is new.
func (l *links) look() error {
	missing, err := l.watch.Missing()
	if err != nil {
		return err
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if slices.Equal(missing, l.missing) {
		return nil
	}
	if len(missing) > 0 {
		l.log.Error("links of the VM's network are missing", "links", missing, "remedy", missingRemedy)
	} else {
		l.log.Info("the links of the VM's network are there again")
	}
	l.missing = missing
	close(l.changed)
	l.changed = make(chan struct{})
	return nil
}

// follow looks at each change until ctx ends. Not to know any more is no reason
// to end what serves the VM.
func (l *links) follow(ctx context.Context) {
	for {
		err := l.watch.Wait(ctx)
		if ctx.Err() != nil {
			return
		}
		if err == nil {
			err = l.look()
		}
		if err != nil {
			l.log.Warn("can't watch the links of the VM's network any more", "error", err)
			return
		}
	}
}

// state returns what is missing, and what is closed when that changes.
func (l *links) state() (missing []string, changed <-chan struct{}) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.missing, l.changed
}

// waitForAll blocks until no link is missing, or ctx ends.
func (l *links) waitForAll(ctx context.Context) error {
	for {
		missing, changed := l.state()
		if len(missing) == 0 {
			return nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

func (l *links) close() { l.watch.Close() }
