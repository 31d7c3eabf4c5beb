package main

import (
	"fmt"
	"io"
	"time"

	"github.com/virt-launcher-net/virt-launcher-net/pkg/prestart"
)

// checksView are the results of check. Times are seconds since the tap was
// opened.
type checksView struct {
	Interfaces []checkView `json:"interfaces"`
}

type checkView struct {
	prestart.CheckReport
	ForwardingAfter float64 `json:"forwardingAfterSeconds"`
	OfferAfter      float64 `json:"offerAfterSeconds,omitempty"`
	Offer6After     float64 `json:"offer6AfterSeconds,omitempty"`
	ResolvedAfter   float64 `json:"resolvedAfterSeconds,omitempty"`
	AdvertisedAfter float64 `json:"advertisedAfterSeconds,omitempty"`
	Resolved6After  float64 `json:"resolved6AfterSeconds,omitempty"`
}

func viewChecks(reports []prestart.CheckReport) checksView {
	v := checksView{Interfaces: []checkView{}}
	for _, r := range reports {
		v.Interfaces = append(v.Interfaces, checkView{
			CheckReport: r, ForwardingAfter: r.Forwarding.Seconds(),
			OfferAfter: r.Offer.Seconds(), ResolvedAfter: r.Resolved.Seconds(),
			Offer6After: r.Offer6.Seconds(), AdvertisedAfter: r.Advertised.Seconds(), Resolved6After: r.Resolved6.Seconds(),
		})
	}
	return v
}

func (v checksView) writeText(w io.Writer) {
	for _, r := range v.Interfaces {
		say := func(after time.Duration, format string, args ...any) {
			if after > 0 {
				fmt.Fprintf(w, "%s\t%s after %s\n", r.Tap, fmt.Sprintf(format, args...), after.Round(time.Microsecond))
			}
		}
		say(r.Forwarding, "forwarding")
		say(r.Offer6, "offered %s", r.Address6)
		say(r.Advertised, "router advertised")
		say(r.Resolved6, "router %s is at %s", r.Router6, r.Router6MAC)
		say(r.Offer, "offered %s", r.Address)
		say(r.Resolved, "gateway %s is at %s", r.Gateway, r.GatewayMAC)
		if r.Note != "" {
			fmt.Fprintf(w, "%s\t%s\n", r.Tap, r.Note)
		}
	}
}
