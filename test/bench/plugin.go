package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// byAgent adds the pods by the CNI plugin, beside an agent.
func (b bench) byAgent(ctx context.Context, s *site, n *nodeResult) (pids []int, end func() error, err error) {
	dir := filepath.Join(s.dir, "node")
	cmd := exec.CommandContext(ctx, b.static, "node", "--state-dir", dir, "--log-level", "error")
	cmd.Stderr = os.Stderr
	if _, err := start(ctx, s.node, cmd); err != nil {
		return nil, func() error { return nil }, err
	}
	end = func() error { return errors.Join(cmd.Process.Signal(unix.SIGTERM), cmd.Wait(), unmountAll(s.pods)) }
	if err := mountAll(s.pods); err != nil {
		return nil, end, err
	}
	if err := waitFor(ctx, filepath.Join(dir, "node.sock")); err != nil {
		return nil, end, err
	}
	err = n.timed(s.pods, func(p *pod) error { return p.add(ctx, b.static, dir) })
	return []int{cmd.Process.Pid}, end, err
}

// netns is where a runtime mounts the pod's network namespace.
func (p *pod) netns() string { return p.dir + ".netns" }

func mountAll(pods []*pod) error {
	for _, p := range pods {
		err := os.WriteFile(p.netns(), nil, 0o600)
		if err == nil {
			err = os.NewSyscallError("mount", unix.Mount(p.ns.Path(), p.netns(), "", unix.MS_BIND, ""))
		}
		if err != nil {
			return err
		}
	}
	return nil
}

func unmountAll(pods []*pod) error {
	for _, p := range pods {
		if err := unix.Unmount(p.netns(), unix.MNT_DETACH); err != nil && !errors.Is(err, unix.EINVAL) && !errors.Is(err, unix.ENOENT) {
			return os.NewSyscallError("unmount", err)
		}
	}
	return nil
}

// waitFor waits until there is a file.
func waitFor(ctx context.Context, path string) error {
	for ctx.Err() == nil {
		if _, err := os.Lstat(path); err == nil {
			return nil
		}
		time.Sleep(time.Millisecond)
	}
	return context.Cause(ctx)
}

// add calls the plugin as a runtime does.
func (p *pod) add(ctx context.Context, plugin, stateDir string) error {
	cmd := exec.CommandContext(ctx, plugin)
	cmd.Env = append(os.Environ(), "CNI_COMMAND=ADD", "CNI_CONTAINERID=bench-"+filepath.Base(p.dir), "CNI_NETNS="+p.netns(), "CNI_IFNAME="+podLink,
		"CNI_PATH="+filepath.Dir(plugin), "CNI_ARGS=K8S_POD_NAMESPACE=bench;K8S_POD_NAME=vm-"+filepath.Base(p.dir))
	cmd.Stdin = strings.NewReader(fmt.Sprintf(`{"cniVersion":"1.1.0","name":"bench","type":"virt-launcher-net","select":"all","stateDir":%q,`+
		`"prevResult":{"cniVersion":"1.1.0","interfaces":[{"name":%q,"sandbox":%q}],"ips":[{"address":%q,"gateway":%q,"interface":0}]}}`,
		stateDir, podLink, p.netns(), p.ip, p.gateway))
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("CNI ADD: %w: %s", err, out)
	}
	return nil
}
