package main

import (
	"cmp"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/virt-launcher-net/virt-launcher-net/pkg/control"
	"github.com/virt-launcher-net/virt-launcher-net/pkg/lease"
	"github.com/virt-launcher-net/virt-launcher-net/pkg/prestart"
	"github.com/virt-launcher-net/virt-launcher-net/pkg/ra"
)

func writeStatus(w io.Writer, v prestart.Status) {
	if v.Server.Alive {
		fmt.Fprintf(w, "server\tpid %d, since %s%s\n", v.Server.PID, v.Server.Since.Format(time.RFC3339), notReady(v))
		rows(w, "domain", "%s", v.Server.Domain)
		rows(w, "record", "not on disk: %s", v.Server.RecordError)
	}
	rows(w, "server", "%s", v.Server.Error)
	rows(w, "network", "%v", v.Unrecorded...)
	rows(w, "interface", "%s is not prepared", v.NotPrepared...)
	if !v.Prepared && len(v.Unrecorded)+len(v.NotPrepared) == 0 {
		fmt.Fprintln(w, "network\tnot prepared")
	}
	for _, i := range v.Interfaces {
		fmt.Fprintf(w, "\ninterface\t%s\n", i.Name)
		recorded := len(i.Links) > 0
		rows(w, "datapath", "%s", i.Datapath)
		if i.Tap != "" {
			fmt.Fprintf(w, "addresses\t%s\nmac\t%s\nmtu\t%d\n", cmp.Or(join(i.Addresses), "none"), i.MAC, i.MTU)
		}
		rows(w, "ports", "the pod keeps %s", i.PodPorts.String())
		rows(w, "ports", "the VM gets %s", i.VMPorts.String())
		for _, a := range i.Aliases {
			fmt.Fprintf(w, "alias\t%s is the VM within the pod, %s the pod for the VM\n", a.VM, a.Pod)
		}
		rows(w, "alias", "%s", i.Unreached...)
		for _, l := range i.Links {
			fmt.Fprintf(w, "link\t%s\t%s\n", l.Name, linkWords(l))
		}
		for _, d := range i.Differences {
			fmt.Fprintf(w, "not as planned\t%s: %s\n", d, d.Remedy)
		}
		if i.Lease != nil {
			writeLease(w, "lease", *i.Lease)
		}
		if i.LeaseUnknown {
			fmt.Fprintln(w, "lease\tnot known: a VM was there before the server, and nothing was kept of its lease")
		}
		rows(w, "network", "not watched: %s", i.Unwatched)
		if i.Lease6 != nil {
			writeLease(w, "IPv6 lease", *i.Lease6)
		}
		if i.Router != nil {
			writeRouter(w, *i.Router)
		}
		rows(w, "left out", "%s", i.Omitted...)
		for _, c := range i.Counters {
			if c.Packets > 0 {
				fmt.Fprintf(w, "guard dropped\t%d %s: %s\n", c.Packets, strings.ReplaceAll(string(c.Direction), "_", " the "), c.Reason)
			}
		}
		rows(w, "guard", "%s", i.GuardError)
		if !recorded {
			continue
		}
		filter := "on"
		if !i.ChecksumFilter {
			filter = "off: " + i.ChecksumFilterReason
		}
		fmt.Fprintf(w, "checksum filter\t%s\n", filter)
	}
}

func notReady(v prestart.Status) string {
	differs := func(i prestart.InterfaceStatus) bool { return len(i.Differences) > 0 }
	switch {
	case v.Server.Ended != "":
		return ", serves no more: " + v.Server.Ended
	case slices.ContainsFunc(v.Interfaces, differs):
		return ", not ready: the network is not as planned"
	case !v.Server.Ready:
		return ", not ready yet"
	}
	return ""
}

func linkWords(l prestart.LinkStatus) string {
	if !l.Exists {
		return "missing"
	}
	words := []string{"down"}
	if l.Up {
		words[0] = "up"
	}
	if !l.Carrier {
		words = append(words, "no carrier")
	}
	if l.Master != "" {
		words = append(words, "port of "+l.Master)
	}
	words = append(words, fmt.Sprintf("MTU %d", l.MTU))
	return strings.Join(words, ", ")
}

func writeLease(w io.Writer, what string, l lease.Status) {
	fmt.Fprintf(w, "%s\t%s", what, l.State)
	if !l.Since.IsZero() {
		fmt.Fprintf(w, " since %s", l.Since.Format(time.RFC3339))
	}
	if why := l.LastEvent.Type; l.State == lease.None && why != "" && why != lease.EventOffered {
		fmt.Fprintf(w, ", %s", why)
	}
	if !l.Expires.IsZero() {
		fmt.Fprintf(w, ", until %s", l.Expires.Format(time.RFC3339))
	}
	fmt.Fprintln(w)
	if l.IsKept() {
		fmt.Fprintf(w, "%s\tkept for a VM that is resumed: none has %s open (no carrier)\n", what, l.Interface)
	}
	if l.Client != (lease.Client{}) {
		fmt.Fprintf(w, "client\thostname %q, vendor class %q, id %s\n", l.Client.Hostname, l.Client.VendorClass, cmp.Or(l.Client.ID, "none"))
	}
	if !l.Renewed.IsZero() {
		fmt.Fprintf(w, "renewed\tat %s\n", l.Renewed.Format(time.RFC3339))
	}
	if !l.Declined.IsZero() {
		fmt.Fprintf(w, "declined\tat %s: somebody else used the address\n", l.Declined.Format(time.RFC3339))
	}
	if l.LastMessage.Type != "" {
		fmt.Fprintf(w, "last message\t%s at %s\n", l.LastMessage.Type, l.LastMessage.At.Format(time.RFC3339))
	}
	writeCounts(w, l.Received, l.Sent, l.Dropped)
	if o := l.OtherSource; o.Count > 0 {
		fmt.Fprintf(w, "other MAC\t%s asked %d times, last at %s, the VM's is %s: %s\n", o.MAC, o.Count, o.At.Format(time.RFC3339), o.Want, o.Remedy())
	}
	writeTrouble(w, l.LastError, l.Notes)
}

func writeCounts(w io.Writer, received, sent map[string]uint64, dropped map[lease.DropReason]uint64) {
	fmt.Fprintf(w, "received\t%s\nsent\t%s\n", lease.Counts(received), lease.Counts(sent))
	if len(dropped) > 0 {
		fmt.Fprintf(w, "dropped\t%s\n", lease.Counts(dropped))
	}
}

func writeTrouble(w io.Writer, last lease.Failure, notes []string) {
	if last.Error != "" {
		fmt.Fprintf(w, "last error\t%s at %s\n", last.Error, last.At.Format(time.RFC3339))
	}
	rows(w, "left out", "%s", notes...)
}

func writeRouter(w io.Writer, r ra.Status) {
	fmt.Fprintf(w, "IPv6 router\t%s\n", r.Router)
	writeCounts(w, r.Received, r.Sent, r.Dropped)
	writeTrouble(w, r.LastError, r.Notes)
}

// writeLeases is what wait prints.
func writeLeases(w io.Writer, v control.Status) {
	for _, i := range v.Interfaces {
		for _, lease := range []*lease.Status{i.Lease, i.Lease6} {
			if lease != nil {
				fmt.Fprintf(w, "%s\t%s\t%s\n", i.Name, lease.Address, lease.State)
			}
		}
	}
}
