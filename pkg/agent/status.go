package agent

import (
	"time"

	"github.com/virt-launcher-net/virt-launcher-net/internal/attachment"
	"github.com/virt-launcher-net/virt-launcher-net/pkg/control"
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
	// Served is what is served, as the pod's containers are told.
	Served control.Status `json:"served"`
}
