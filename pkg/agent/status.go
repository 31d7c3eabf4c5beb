package agent

import (
	"cmp"
	"errors"
	"io/fs"
	"maps"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/virt-launcher-net/virt-launcher-net/internal/attachment"
	"github.com/virt-launcher-net/virt-launcher-net/pkg/control"
	"github.com/virt-launcher-net/virt-launcher-net/pkg/prepare"
	"github.com/virt-launcher-net/virt-launcher-net/pkg/prestart"
)

// Status is what an agent serves.
type Status struct {
	PID     int       `json:"pid"`
	Version string    `json:"version,omitempty"`
	Since   time.Time `json:"since"` // when it began to serve
	Pods    []Pod     `json:"pods"`
	// Errors are of attachments that can't be read.
	Errors []string `json:"errors,omitempty"`
}

// Pod is one pod of an agent.
type Pod struct {
	attachment.Pod
	ContainerID string `json:"containerID"` // of its sandbox
	Netns       string `json:"netns"`
	// NotServed is why a NIC is not served, by pod interface; none: all are.
	NotServed map[string]string `json:"notServed,omitempty"`
	// Deleted is what somebody has deleted of the files of a NIC that is served, and what
	// follows, by pod interface; none: nothing.
	Deleted map[string]string `json:"deleted,omitempty"`
	// Served is what is served, as the pod's containers are told.
	Served control.Status `json:"served"`
}

// Status tells what is served.
func (a *Agent) Status() Status {
	a.mu.Lock()
	s := Status{PID: os.Getpid(), Version: a.version, Since: a.since, Pods: []Pod{}}
	for _, id := range slices.Sorted(maps.Keys(a.unreadable)) {
		if _, err := os.Stat(attachment.Dir(a.stateDir, id)); errors.Is(err, fs.ErrNotExist) {
			delete(a.unreadable, id) // DEL can't say which NIC it was
			continue
		}
		s.Errors = append(s.Errors, a.unreadable[id].Error())
	}
	sessions := map[string]*prestart.Session{}
	for id, p := range a.pods {
		s.Pods = append(s.Pods, p.status())
		sessions[id] = p.session
	}
	a.mu.Unlock() // what follows reads the kernel, and nobody waits for it
	for i := range s.Pods {
		s.Pods[i].add(sessions[s.Pods[i].ContainerID])
	}
	slices.SortFunc(s.Pods, func(a, b Pod) int {
		return cmp.Or(strings.Compare(a.Namespace, b.Namespace), strings.Compare(a.Name, b.Name), strings.Compare(a.ContainerID, b.ContainerID))
	})
	return s
}

// GuardCounters reads what the port guards of a pod kept from crossing, by pod interface.
// It needs NET_ADMIN. A pod that is not served has none.
func (a *Agent) GuardCounters(containerID string) (map[string][]prepare.GuardCounter, error) {
	a.mu.Lock()
	p := a.pods[containerID]
	var session *prestart.Session
	if p != nil {
		session = p.session
	}
	a.mu.Unlock()
	if session == nil {
		return nil, nil
	}
	return session.GuardCounters()
}

// status is without what the session knows. It is called under the agent's lock.
func (p *pod) status() Pod {
	s := Pod{Pod: p.name, ContainerID: p.id, Netns: p.netns, NotServed: map[string]string{}, Deleted: map[string]string{}, Served: control.Status{Interfaces: []control.Served{}}}
	for name, n := range p.nics {
		if n.err != nil {
			s.NotServed[name] = n.err.Error()
		}
		if n.deleted != "" {
			s.Deleted[name] = n.deleted
		}
	}
	return s
}

// add adds what the session knows; nil: there is none.
func (p *Pod) add(session *prestart.Session) {
	if session != nil {
		p.Served = session.Status()
	}
	p.Served.Ready = p.Served.Ready && len(p.NotServed) == 0
}
