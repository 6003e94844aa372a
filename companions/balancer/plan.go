// Package balancer is the common part of all balancers' companions: it follows the zone's routes, makes a plan of them, lets
// a proxy apply the plan, and confirms it. The packages nginx and haproxy implement the proxy.
//
// Vocabulary: routes are what the zone sends, a Plan is their checked and ordered form, a Refusal is a service that cannot
// be routed, an old process is one that finishes connections after a reload.
//
// It owns what is desired of a proxy (the routes and their generation) and the confirmations. A proxy owns its configuration and process.
package balancer

import (
	"cmp"
	"crypto/sha256"
	"crypto/tls"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"

	"github.com/mammoth-os/mammoth/internal/expose"
	"github.com/mammoth-os/mammoth/internal/wire"
	apiv1 "github.com/mammoth-os/mammoth/proto/mammoth/api/v1"
	companionv1 "github.com/mammoth-os/mammoth/proto/mammoth/companion/v1"
)

// Plan is everything that a proxy routes, in an order that depends on its content only.
type Plan struct {
	// Services by name. Their values are checked: they are safe in a configuration.
	Services []Service
	// Host names in order; AnyHost comes last.
	Hosts []Host
	// TCP ports in order.
	TCP []TCP
}

// Service is one group of instances.
type Service struct {
	// Name is the service's name in the registry.
	Name string
	// Expose is how it is reached, without parts that were refused.
	Expose *apiv1.Expose
	// The servers of HTTP requests; empty if the service has no http.
	HTTP []Server
	// The TCP ports that the proxy can listen on.
	TCP []*apiv1.Expose_Tcp
	// Set if the service is also served with TLS.
	Certificate *Certificate
}

// Server is one port of an instance.
type Server struct {
	// The endpoint's id.
	ID string
	// Address and Port are where the instance is reached.
	Address string
	Port    int32
	// At least 1.
	Weight int32
}

// Host is one host name and the prefixes below it.
type Host struct {
	Name string
	// The certificate for this name, if one of its services asks for TLS.
	Certificate *Certificate
	// Longest first.
	Paths []Path
}

// Path is a prefix and the service that it leads to.
type Path struct {
	Prefix  string
	Service *Service
}

// TCP is a port whose connections are forwarded.
type TCP struct {
	Listen  int32
	Service *Service
	Servers []Server
}

// Certificate is an existing certificate that fits its key.
type Certificate struct {
	Name string
	// Files with the chain and the key.
	Chain, Key string
	// Changes with their content.
	Digest string
}

// Route is an exposed service of the zone.
type Route struct {
	Service *apiv1.Service
	Expose  *apiv1.Expose
}

// Limits are the abilities of a proxy.
type Limits struct {
	// Folder of NAME.crt and NAME.key; empty if the proxy has no TLS port.
	Certificates string
	// Returns why this proxy cannot forward a TCP port, one sentence; nil if it can forward any.
	TCP func(listen int32) string
}

// MakePlan converts routes to a plan. A service that cannot be routed is refused with one sentence and affects no other; of two
// services with the same claim, the first by name has it. If only a part of a service cannot be routed, the rest is: without its
// hosts, for example because a TCP port is taken, their requests would go to the app that has claimed all hosts.
func MakePlan(routes map[string]Route, limits Limits) (*Plan, []*companionv1.Refusal) {
	plan := &Plan{}
	var refusals []*companionv1.Refusal
	taken := expose.Claims{}
	for _, name := range slices.Sorted(maps.Keys(routes)) {
		service, err := makeService(name, routes[name], limits, taken)
		if err != nil {
			refusals = append(refusals, &companionv1.Refusal{Service: name, Reason: wire.Sentence(err)})
		}
		if service != nil {
			plan.Services = append(plan.Services, *service)
		}
	}
	hosts := map[string]*Host{}
	for i := range plan.Services {
		plan.add(&plan.Services[i], routes[plan.Services[i].Name].Service, hosts)
	}
	for _, name := range slices.Sorted(maps.Keys(hosts)) {
		host := hosts[name]
		slices.SortFunc(host.Paths, func(a, b Path) int {
			return cmp.Or(cmp.Compare(len(b.Prefix), len(a.Prefix)), cmp.Compare(a.Prefix, b.Prefix))
		})
		plan.Hosts = append(plan.Hosts, *host)
	}
	slices.SortStableFunc(plan.Hosts, func(a, b Host) int { return cmp.Compare(rank(a.Name), rank(b.Name)) })
	slices.SortFunc(plan.TCP, func(a, b TCP) int { return cmp.Compare(a.Listen, b.Listen) })
	return plan, refusals
}

// rank orders exact names before patterns, and patterns before everything.
func rank(host string) int {
	switch {
	case host == expose.AnyHost:
		return 2
	case host[0] == '*':
		return 1
	}
	return 0
}

// makeService checks a route. The error says what of it cannot be routed; the service has the rest, and is nil if nothing is left.
func makeService(name string, route Route, limits Limits, taken expose.Claims) (*Service, error) {
	if !isServiceName(name) {
		return nil, fmt.Errorf("%.64q is not the name of a service", name)
	}
	// The ResourceManager has checked the ports' names; an endpoint without the port is left out.
	if err := expose.Check(route.Expose, portNames(route.Expose)); err != nil {
		return nil, err
	}
	if err := taken.Take(name, route.Expose); err != nil {
		return nil, err
	}
	service := &Service{Name: name, Expose: route.Expose}
	var problem error
	for _, tcp := range route.Expose.GetTcp() {
		if limits.TCP != nil {
			if why := limits.TCP(tcp.GetListen()); why != "" {
				problem = cmp.Or(problem, errors.New(why))
				continue
			}
		}
		service.TCP = append(service.TCP, tcp)
	}
	if h := route.Expose.GetHttp(); h != nil {
		service.HTTP = servers(route.Service, h.GetPort())
		if h.GetCertificate() != "" {
			certificate, err := findCertificate(limits.Certificates, h.GetCertificate())
			service.Certificate, problem = certificate, cmp.Or(problem, err)
		}
	}
	switch {
	case problem == nil:
		return service, nil
	case route.Expose.GetHttp() == nil && len(service.TCP) == 0:
		return nil, problem
	}
	return service, fmt.Errorf("%w; what else it exposes is routed", problem)
}

func (p *Plan) add(service *Service, state *apiv1.Service, hosts map[string]*Host) {
	if h := service.Expose.GetHttp(); h != nil {
		for _, name := range expose.Hosts(h) {
			host := hosts[name]
			if host == nil {
				host = &Host{Name: name}
				hosts[name] = host
			}
			if host.Certificate == nil {
				host.Certificate = service.Certificate
			}
			for _, prefix := range expose.Paths(h) {
				host.Paths = append(host.Paths, Path{Prefix: prefix, Service: service})
			}
		}
	}
	for _, tcp := range service.TCP {
		p.TCP = append(p.TCP, TCP{Listen: tcp.GetListen(), Service: service, Servers: servers(state, tcp.GetPort())})
	}
}

// servers lists the healthy instances, or if there is none the unhealthy ones, without those of weight zero. Endpoints that
// an app has registered itself are left out: they could have any address, also the ResourceManager's, and requests from
// outside would reach it.
func servers(service *apiv1.Service, port string) []Server {
	var healthy, rest []Server
	for _, endpoint := range service.GetEndpoints() {
		number := endpoint.GetPort()
		if port != "" {
			number = endpoint.GetPorts()[port]
		}
		address, ok := plainAddress(endpoint.GetAddress())
		if number < 1 || number > 65535 || endpoint.GetWeight() < 1 || endpoint.GetAppOwned() || !ok || !isServiceName(endpoint.GetId()) {
			continue
		}
		server := Server{ID: endpoint.GetId(), Address: address, Port: number, Weight: endpoint.GetWeight()}
		if endpoint.GetState() == apiv1.Endpoint_UNHEALTHY {
			rest = append(rest, server)
		} else {
			healthy = append(healthy, server)
		}
	}
	if len(healthy) == 0 {
		healthy = rest
	}
	slices.SortFunc(healthy, func(a, b Server) int { return cmp.Compare(a.ID, b.ID) })
	return healthy
}

func findCertificate(folder, name string) (*Certificate, error) {
	if folder == "" {
		return nil, fmt.Errorf("the certificate %q is needed, but this balancer serves no TLS", name)
	}
	found := &Certificate{Name: name, Chain: filepath.Join(folder, name+".crt"), Key: filepath.Join(folder, name+".key")}
	chain, err := os.ReadFile(found.Chain)
	if err == nil {
		var key []byte
		if key, err = os.ReadFile(found.Key); err == nil {
			if _, err := tls.X509KeyPair(chain, key); err != nil {
				return nil, fmt.Errorf("the certificate %q does not fit its key: %w", name, err)
			}
			sum := sha256.Sum256(append(append([]byte{}, chain...), key...))
			found.Digest = hex.EncodeToString(sum[:8])
			return found, nil
		}
	}
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("the balancer has no certificate %q: its operator puts %s.crt and %s.key into %s", name, name, name, folder)
	}
	return nil, fmt.Errorf("read the certificate %q: %w", name, err)
}
