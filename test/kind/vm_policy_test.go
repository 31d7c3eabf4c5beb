package kind

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"testing"
)

// fromPeers is a NetworkPolicy for all pods of a namespace: nobody but pods with the label
// role=peer reaches them, and these at some ports (empty: all).
const fromPeers = `
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: from-peers}
spec:
  podSelector: {}
  policyTypes: [Ingress]
  ingress:
    - from: [{namespaceSelector: {}, podSelector: {matchLabels: {role: peer}}}]
      ports: [%s]
`

// toServer is one by which they open connections to the pod server and to the cluster's DNS.
const toServer = `
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: to-server}
spec:
  podSelector: {}
  policyTypes: [Egress]
  egress:
    - to: [{namespaceSelector: {}, podSelector: {matchLabels: {app: server}}}]
    - ports: [{protocol: UDP, port: 53}, {protocol: TCP, port: 53}]
`

// NetworkPolicies, which kube-router enforces beside flannel, hold for a VM at its pod's
// address, and for the container that shares it: who reaches them, at which port, and whom
// they reach.
func TestPolicy(t *testing.T) {
	apply(t)
	kubectl(t, "apply", "-f", "policy.yaml")
	kubectl(t, "-n", "kube-system", "rollout", "status", "daemonset/kube-router", "--timeout="+patience)
	kubectl(t, "label", "pod/client", "role=peer", "--overwrite")
	api := "https://" + get(t, "service/kubernetes", ".spec.clusterIP") + "/livez"
	inside := "http://server.default.svc.cluster.local"
	a := newVM(t, ".", "vm", "vm-policy-a", "Never", inside, api)
	b := newVM(t, "redirect", "vm-redirect", "vm-policy-b", "Never", inside, api)
	before := left(t)
	for _, v := range []*vm{a, b} {
		v.setPolicy(t, toServer)
		v.apply(t)
	}
	for name, v := range map[string]*vm{"alone": a, "beside a container": b} {
		pages := map[string]string{"80": guest}
		if v == b {
			pages["8080"] = hello
		}
		t.Run(name, func(t *testing.T) {
			v.waitReady(t)
			v.testEgress(t, inside, api)
			v.testIngress(t, pages)
		})
	}
	t.Run("nothing is left", func(t *testing.T) { nothingIsLeft(t, before, a, b) })
}

func (v *vm) setPolicy(t *testing.T, policy string) {
	t.Helper()
	v.write(t, "policy.yaml", policy)
	v.kubectl(t, "apply", "-f", v.overlay+"/policy.yaml")
}

// testEgress: the guest, and the container if there is one, got what the policy lets them get,
// and nothing else.
func (v *vm) testEgress(t *testing.T, allowed, denied string) {
	t.Helper()
	if got := v.report(t).Got; got[allowed] != server || got[denied] != "" {
		t.Errorf("the guest got %q", got)
	}
	if v.pod == "vm-redirect" {
		v.appGets(t, allowed, server)
		if out, err := try(t.Context(), "kubectl", "-n", v.namespace, "exec", v.pod, "-c", app, "--", "curl", "-sSk", "--max-time", "2", denied); err == nil {
			t.Errorf("the container got %q", out)
		}
	}
	v.kubectl(t, "delete", "networkpolicy/to-server")
	if v.pod == "vm-redirect" {
		eventually(t, func(ctx context.Context) error {
			_, err := try(ctx, "kubectl", "-n", v.namespace, "exec", v.pod, "-c", app, "--", "curl", "-sSk", "--max-time", "2", denied)
			return err
		})
	}
}

// testIngress: pages are what is to be had, by port.
func (v *vm) testIngress(t *testing.T, pages map[string]string) {
	t.Helper()
	ip := v.ip(t)
	from := func(pod string, ports ...string) {
		t.Helper()
		for port, page := range pages {
			allowed := len(ports) == 0 || slices.Contains(ports, port)
			eventually(t, func(ctx context.Context) error {
				out, err := try(ctx, "kubectl", "exec", pod, "--", "curl", "-sS", "--max-time", "2", "http://"+ip+":"+port)
				switch {
				case allowed && err == nil && out != page:
					return fmt.Errorf("%s gets %q of port %s, want %q", pod, out, port, page)
				case allowed:
					return err
				case err == nil:
					return errors.New(pod + " gets " + out + " of port " + port)
				}
				return nil
			})
		}
	}
	from("client") // on another node
	from("server") // on the same
	v.setPolicy(t, fmt.Sprintf(fromPeers, ""))
	from("server", "none")
	from("client")
	for port := range pages {
		v.setPolicy(t, fmt.Sprintf(fromPeers, "{port: "+port+"}"))
		from("client", port)
		from("server", "none")
	}
	v.waitReady(t) // the node's kubelet is let through
	v.kubectl(t, "delete", "networkpolicy/from-peers")
	from("client")
	from("server")
}
