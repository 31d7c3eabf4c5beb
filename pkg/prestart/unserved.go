package prestart

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/virt-launcher-net/virt-launcher-net/pkg/journal"
	"github.com/virt-launcher-net/virt-launcher-net/pkg/prepare"
)

// unserved is that a server of ours did not answer the guest's seat.
type unserved struct{ error }

func (u unserved) Unwrap() error { return u.error }

func isUnserved(err error) bool {
	_, is := errors.AsType[unserved](err)
	return is
}

// askServer asks the serving process, also where ctx has ended meanwhile.
func (h Hook) askServer(ctx context.Context) (SessionStatus, error) {
	return h.askStatus(context.WithoutCancel(ctx), time.Second)
}

// whyUnserved adds to err why nothing answered since start: nobody serves, or
// what went wrong on the server's side.
func whyUnserved(err error, session SessionStatus, askErr error, p prepare.Plan, start time.Time) error {
	if errors.Is(askErr, ErrNobodyServes) {
		return fmt.Errorf("%w: %w: start a server, with the same state directory", err, ErrNobodyServes)
	}
	name := p.Interface.Name
	for _, failure := range []journal.Failure{session.Leases[name].LastError, session.Leases6[name].LastError, session.Routers[name].LastError} {
		if failure.Error != "" && failure.At.After(start) {
			err = fmt.Errorf("%w: the server could not: %s", err, failure.Error)
		}
	}
	return err
}
