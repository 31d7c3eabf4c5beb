package metric

import (
	"github.com/virt-launcher-net/virt-launcher-net/pkg/control"
	"github.com/virt-launcher-net/virt-launcher-net/pkg/prepare"
)

// Pod is one of many that a process serves.
type Pod struct {
	Namespace, Name string
	Status          control.Status
	Guards          map[string][]prepare.GuardCounter // by pod interface
}

var nicServed = gauge("nic_served", "1 while the NIC is served, 0 while it can't be.", "namespace", "pod", "interface")

// ofPod are the metrics of a session where it is one of many.
var ofPod = func() map[*Desc]*Desc {
	all := map[*Desc]*Desc{}
	for _, d := range OfSession {
		pod := *d
		pod.Labels = append([]string{"namespace", "pod"}, d.Labels...)
		all[d] = &pod
	}
	return all
}()

// OfPods are the metrics of many pods: those of a session, each with the namespace and
// the name of its pod, and which of their NICs are served.
var OfPods = func() []*Desc {
	all := []*Desc{nicServed}
	for _, d := range OfSession {
		all = append(all, ofPod[d])
	}
	return all
}()

// ReadPods reads all of the pods. Of those that have one name, as a pod that is made anew
// has for a while, it reads the first alone.
func ReadPods(pods []Pod, each Each) {
	seen := map[[2]string]bool{}
	for _, p := range pods {
		name := [2]string{p.Namespace, p.Name}
		if seen[name] {
			continue
		}
		seen[name] = true
		readStatus(p.Status, p.Guards, func(d *Desc, value float64, labels ...string) {
			each(ofPod[d], value, append([]string{p.Namespace, p.Name}, labels...)...)
		})
		for _, i := range p.Status.Interfaces {
			each(nicServed, oneIf(i.Error == ""), p.Namespace, p.Name, i.Name)
		}
	}
}
