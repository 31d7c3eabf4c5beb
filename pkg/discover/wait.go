package discover

import (
	"context"
	"time"

	"golang.org/x/sys/unix"

	"github.com/virt-launcher-net/virt-launcher-net/internal/nl"
)

// quiet is how long the kernel must have reported no change before a pod that
// was still without its address when we came is taken to be complete: a CNI
// adds the address first and the routes after it.
const quiet = 250 * time.Millisecond

// waitForInterfaces returns the interfaces asked for once they are there.
func waitForInterfaces(ctx context.Context, o Options) ([]Interface, error) {
	conn, err := nl.Open()
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	k, err := read(conn)
	if err != nil {
		return nil, err
	}
	interfaces, perhaps, missing := k.interfaces(o)
	if missing != nil || perhaps {
		if interfaces, err = waitForCNI(ctx, conn, o); err != nil {
			return nil, err
		}
	}
	return interfaces, resolveGateways(ctx, conn, interfaces, o)
}

// waitForCNI waits until nothing is missing, and the kernel reports no change for a while.
func waitForCNI(ctx context.Context, conn *nl.Conn, o Options) ([]Interface, error) {
	events, err := nl.Subscribe(unix.RTNLGRP_LINK, unix.RTNLGRP_IPV4_IFADDR, unix.RTNLGRP_IPV6_IFADDR,
		unix.RTNLGRP_IPV4_ROUTE, unix.RTNLGRP_IPV6_ROUTE)
	if err != nil {
		return nil, err
	}
	defer events.Close()
	for logged := false; ; {
		k, err := read(conn) // at first once more, since what has changed before is no event
		if err != nil {
			return nil, err
		}
		interfaces, _, missing := k.interfaces(o)
		if missing == nil {
			if isQuiet(ctx, events) {
				return interfaces, nil
			}
			continue
		}
		if !logged {
			logged = true
			o.Log.Info("waiting for the CNI", "for", missing.Error())
		}
		if err := events.Wait(ctx); err != nil {
			if ctx.Err() != nil {
				return nil, &IncompleteError{Missing: missing, Cause: context.Cause(ctx)}
			}
			return nil, err
		}
	}
}

// isQuiet waits for the next change and reports whether there was none for a
// while. Then events is used up.
func isQuiet(ctx context.Context, events *nl.Events) bool {
	ctx, cancel := context.WithTimeout(ctx, quiet)
	defer cancel()
	return events.Wait(ctx) != nil
}
