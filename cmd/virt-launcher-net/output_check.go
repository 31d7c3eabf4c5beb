package main

import (
	"fmt"
	"io"
	"time"

	"github.com/virt-launcher-net/virt-launcher-net/pkg/check"
)

func writeChecks(w io.Writer, reports []check.Report) {
	for _, r := range reports {
		say := func(after float64, format string, args ...any) {
			if after > 0 {
				fmt.Fprintf(w, "%s\t%s after %s\n", r.Tap, fmt.Sprintf(format, args...), time.Duration(after*1e6)*time.Microsecond)
			}
		}
		say(r.Forwarding, "forwarding")
		say(r.Offered6, "offered %s", r.Address6)
		say(r.Advertised, "router advertised")
		say(r.Resolved6, "router %s is at %s", r.Router6, r.Router6MAC)
		say(r.Offered, "offered %s", r.Address)
		say(r.Resolved, "gateway %s is at %s", r.Gateway, r.GatewayMAC)
		rows(w, r.Tap, "%s", r.Note)
	}
}
