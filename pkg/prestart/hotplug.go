package prestart

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/virt-launcher-net/virt-launcher-net/pkg/check"
	"github.com/virt-launcher-net/virt-launcher-net/pkg/control"
	"github.com/virt-launcher-net/virt-launcher-net/pkg/domain"
)

// DefaultUnplugTimeout is how long a guest has to release a NIC that is unplugged.
const DefaultUnplugTimeout = 30 * time.Second

// Hotplug is how a session plugs interfaces in for who asks on its control socket.
type Hotplug struct {
	// Options changes what the session has for the interface, which is complete, by what
	// was asked for: JSON values by the names of options. What it leaves out is that of the
	// Hook. Nil: nothing can be asked for.
	Options func(InterfaceOptions, map[string]json.RawMessage) (InterfaceOptions, error)
	// Privileged calls what changes the network, with the privileges to do so on the
	// calling thread, for a process that lays them down meanwhile; nil: it has them.
	Privileged func(func() error) error
}

// PlugRequest asks a session to plug an interface in, or to unplug it.
type PlugRequest struct {
	Interface string
	// Options are those of the interface, by the names that [Hotplug.Options] knows.
	Options map[string]json.RawMessage
	// Timeout is how long to wait for what the CNI gives, or until the guest has released
	// the NIC; 0: as long as the session's Hook says, or [DefaultUnplugTimeout].
	Timeout time.Duration
}

// plugMessage is such a request as it is sent.
type plugMessage struct {
	Interface string                     `json:"interface"`
	Options   map[string]json.RawMessage `json:"options,omitempty"`
	Timeout   string                     `json:"timeout,omitempty"` // as "30s"
}

func (r PlugRequest) message() plugMessage {
	m := plugMessage{r.Interface, r.Options, ""}
	if r.Timeout != 0 { // the session refuses a negative one
		m.Timeout = r.Timeout.String()
	}
	return m
}

func parsePlug(text []byte) (r PlugRequest, err error) {
	var m plugMessage
	d := json.NewDecoder(bytes.NewReader(text))
	d.DisallowUnknownFields()
	if err = d.Decode(&m); err == nil && m.Timeout != "" {
		r.Timeout, err = time.ParseDuration(m.Timeout)
	}
	if err == nil && m.Interface == "" {
		err = errors.New("it names no interface")
	}
	if err != nil {
		err = fmt.Errorf(`read request: %w: want JSON such as {"interface": "net1", "options": {"mtu": 1400}, "timeout": "30s"}`, err)
	}
	r.Interface, r.Options = m.Interface, m.Options
	return r, errors.Join(err, notNegative("timeout", r.Timeout))
}

// Plugged is an interface that a session has plugged in.
type Plugged struct {
	Interface
	// Model is the emulated NIC; empty: virtio.
	Model string `json:"model,omitempty"`
	// Domain is the one that has the NIC; empty: the session has none, and who runs the
	// VM attaches it.
	Domain string `json:"domain,omitempty"`
}

// DomainNIC is what [domain.Interfaces] and its like need to attach it.
func (p Plugged) DomainNIC() domain.NIC { return Hook{Model: p.Model}.domainNIC(p.NIC) }

const (
	plugResource   = "/v1/plug"
	unplugResource = "/v1/unplug"
)

// Plug asks the session that serves the pod to plug an interface in, as
// [Session.Plug] does. If ctx ends before, the session does not, unless libvirt was asked
// for the domain already.
func (h Hook) Plug(ctx context.Context, r PlugRequest) (p Plugged, err error) {
	if r.Timeout > 0 {
		var cancel context.CancelFunc
		ctx, cancel = answerWithin(ctx, r.Timeout)
		defer cancel()
	}
	err = h.post(ctx, plugResource, r, &p)
	return p, err
}

// Unplug asks the session that serves the pod to unplug an interface, as
// [Session.Unplug] does. It goes on with that though ctx ends.
func (h Hook) Unplug(ctx context.Context, r PlugRequest) error {
	ctx, cancel := answerWithin(ctx, cmp.Or(r.Timeout, DefaultUnplugTimeout))
	defer cancel()
	return h.post(ctx, unplugResource, r, &struct{}{})
}

// post sends a request. Where the node's agent serves the pod, that is told in the pod
// alone, which takes the right to enter it.
func (h Hook) post(ctx context.Context, resource string, r PlugRequest, answer any) error {
	send := func() error { return h.client().Post(ctx, resource, r.message(), answer) }
	err := send()
	if errors.Is(err, control.ErrNoAnswer) && h.Netns != "" && ctx.Err() == nil {
		if there := in(h.Netns, send); errors.Is(there, control.ErrNode) {
			err = there
		}
	}
	if errors.Is(err, control.ErrNode) {
		return fmt.Errorf("%s %s: %w: its NICs are added and removed by the CNI plugin: have Multus attach the network to the pod, or detach it "+
			"(annotation k8s.v1.cni.cncf.io/networks); the last plugin of that network has to be virt-launcher-net", resource[len("/v1/"):], r.Interface, err)
	}
	return branchable(err)
}

// answerWithin ends when a session that works has long answered a request with that
// timeout.
func answerWithin(ctx context.Context, timeout time.Duration) (context.Context, context.CancelFunc) {
	within := timeout + time.Minute
	return context.WithTimeoutCause(ctx, within, fmt.Errorf("not within %s", within))
}

// answerPlugs has the control socket take these requests.
func (s *Session) answerPlugs() {
	turn := make(chan struct{}, 1) // who has given up meanwhile gets none
	post := func(resource string, do func(context.Context, PlugRequest) (any, error)) {
		s.control.Post(resource, func(ctx context.Context, text []byte) (any, error) {
			r, err := parsePlug(text)
			if s.hook.Hotplug == nil {
				err = ErrNoHotplug
			}
			if err != nil {
				return nil, fmt.Errorf("%s: %w", strings.TrimSpace(resource[len("/v1/"):]+" "+r.Interface), err)
			}
			if err := s.waitStarted(ctx); err != nil {
				return nil, err
			}
			select {
			case turn <- struct{}{}:
				defer func() { <-turn }()
			case <-ctx.Done():
				return nil, context.Cause(ctx)
			}
			return do(ctx, r)
		}, kindOf)
	}
	post(plugResource, s.plugFor)
	post(unplugResource, s.unplugFor)
}

// waitStarted waits until Run has ended: it may yet start a domain, which would not have
// what was plugged in before.
func (s *Session) waitStarted(ctx context.Context) error {
	for {
		s.mu.Lock()
		started, changed := !s.started.IsZero(), s.changed
		s.mu.Unlock()
		if started {
			return nil
		}
		select {
		case <-changed:
		case <-s.done.Done():
			return s.ended()
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

func (s *Session) plugFor(ctx context.Context, r PlugRequest) (any, error) {
	o := s.hook.optionsFor(r.Interface, InterfaceOptions{})
	if len(r.Options) > 0 {
		var err error
		if s.hook.Hotplug.Options == nil {
			err = errors.New("no options can be asked for")
		} else {
			o, err = s.hook.Hotplug.Options(o, r.Options)
		}
		if err != nil {
			return nil, fmt.Errorf("plug %s: %w", r.Interface, err)
		}
		o = s.hook.optionsFor(r.Interface, o)
	}
	n, err := s.plugWith(ctx, r.Interface, o, r.Timeout)
	if err != nil {
		s.hook.Log.Warn("an interface could not be plugged in", "interface", r.Interface, "error", err)
		return nil, err
	}
	p := Plugged{Interface: n.describe(), Model: o.Model}
	if vm := s.domain(); vm != nil {
		p.Domain = vm.Name()
	}
	return p, nil
}

// unplugFor goes on though who asked is gone: the guest was asked, and can't be told
// otherwise.
func (s *Session) unplugFor(ctx context.Context, r PlugRequest) (any, error) {
	within := cmp.Or(r.Timeout, DefaultUnplugTimeout)
	ctx, cancel := context.WithTimeoutCause(context.WithoutCancel(ctx), within, fmt.Errorf("not within %s", within))
	defer cancel()
	err := s.Unplug(ctx, r.Interface)
	if err != nil {
		s.hook.Log.Warn("an interface could not be unplugged", "interface", r.Interface, "error", err)
	}
	return struct{}{}, err
}

// kinds are by what a caller of Hook.Plug and Hook.Unplug may branch, as it is sent.
var kinds = map[string]error{
	"no-hotplug": ErrNoHotplug, "plugged": ErrPlugged, "tap-in-use": check.ErrTapInUse, "not-released": domain.ErrNotReleased,
	"timed-out": context.DeadlineExceeded, // as a TimeoutError is
}

func kindOf(err error) string {
	for kind, target := range kinds {
		if errors.Is(err, target) {
			return kind
		}
	}
	return ""
}

// refusedError is what the session said, by which a caller may branch as by its own.
type refusedError struct {
	*control.RefusedError
	cause error
}

func (e *refusedError) Unwrap() []error { return []error{e.RefusedError, e.cause} }

func branchable(err error) error {
	if refused, ok := errors.AsType[*control.RefusedError](err); ok {
		return &refusedError{refused, kinds[refused.Kind]}
	}
	return err
}
