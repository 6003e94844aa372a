package registry

import (
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/containerd/errdefs"
	"google.golang.org/grpc/metadata"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/mammoth-os/mammoth/internal/wire"
	apiv1 "github.com/mammoth-os/mammoth/proto/mammoth/api/v1"
)

// These are the limits of an app's registrations.
const (
	maxServices  = 64
	maxLeases    = 1000
	maxValues    = 4 << 10
	maxPorts     = 16
	maxID        = 63
	minLease     = 2 * time.Second
	maxLease     = 10 * time.Minute
	defaultLease = 30 * time.Second
	normalWeight = 100
	maxWeight    = 10000
)

// lease is an endpoint that an app registered, or the values that it set on an instance.
type lease struct {
	endpoint *apiv1.Endpoint
	// stop stops the timer that ends it.
	stop func()
}

// AllowRegistration lets apps register endpoints, with keys derived from secret. It is called before the registry is served.
func (r *Registry) AllowRegistration(secret []byte) { r.secret = slices.Clone(secret) }

// KnowApp sets the id of the app that has a name; an empty id means none. The key of an earlier app of that name is invalid
// then.
func (r *Registry) KnowApp(app, id string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if id == "" {
		delete(r.apps, app)
		return
	}
	r.apps[app] = id
}

// AppKey is the key with which the app that has a name registers endpoints; it is good for nothing else.
func (r *Registry) AppKey(app string) string {
	r.mu.Lock()
	id := r.apps[app]
	r.mu.Unlock()
	mac := hmac.New(sha256.New, r.secret)
	mac.Write([]byte("registry key of " + app + " " + id))
	return hex.EncodeToString(mac.Sum(nil)[:20])
}

// RegisterEndpoint adds or renews an endpoint of an app, or values of an instance.
func (r *Registry) RegisterEndpoint(ctx context.Context, request *apiv1.RegisterEndpointRequest) (*apiv1.RegisterEndpointResponse, error) {
	if err := r.authorize(ctx, request.GetService()); err != nil {
		return nil, wire.Status(err)
	}
	ttl, err := checkRegistration(request)
	if err != nil {
		return nil, wire.Status(err)
	}
	name, id := request.GetService(), request.GetId()
	r.mu.Lock()
	defer r.mu.Unlock()
	entry := r.entry(name)
	defer r.discard(name, entry)
	instance := slices.ContainsFunc(entry.instances, func(e *apiv1.Endpoint) bool { return e.GetId() == id })
	endpoint, err := registered(request, instance)
	if err != nil {
		return nil, wire.Status(err)
	}
	if old := entry.leases[id]; old != nil {
		old.stop()
		endpoint.RegisteredAt = old.endpoint.GetRegisteredAt()
	} else if err := r.checkLimits(name, entry); err != nil {
		return nil, wire.Status(err)
	} else {
		endpoint.RegisteredAt = timestamppb.Now()
	}
	held := &lease{endpoint: endpoint}
	held.stop = r.clock.AfterFunc(ttl, func() { r.expire(name, id, held) })
	if entry.leases == nil {
		entry.leases = map[string]*lease{}
	}
	entry.leases[id] = held
	r.publish(name, entry)
	shown := endpoint
	if i, found := slices.BinarySearchFunc(entry.current.GetEndpoints(), endpoint, byID); found {
		shown = entry.current.GetEndpoints()[i]
	}
	return &apiv1.RegisterEndpointResponse{Endpoint: shown, ExpiresAt: timestamppb.New(time.Now().Add(ttl))}, nil
}

// checkLimits refuses a further lease of an app that has reached a limit.
func (r *Registry) checkLimits(name string, entry *service) error {
	app, services, leases := appOf(name), 0, 0
	for other, entry := range r.services {
		if len(entry.leases) > 0 && appOf(other) == app {
			services++
			leases += len(entry.leases)
		}
	}
	switch {
	case len(entry.leases) == 0 && services >= maxServices:
		return fmt.Errorf("app %q has endpoints in %d services, which is the limit: %w", app, services, errdefs.ErrResourceExhausted)
	case leases >= maxLeases:
		return fmt.Errorf("app %q has registered %d endpoints, which is the limit: %w", app, leases, errdefs.ErrResourceExhausted)
	}
	return nil
}

// appOf is the app of a service: web for web and for admin.web.
func appOf(service string) string { return service[strings.LastIndexByte(service, '.')+1:] }

// UnregisterEndpoint ends a lease at once.
func (r *Registry) UnregisterEndpoint(ctx context.Context, request *apiv1.UnregisterEndpointRequest) (*apiv1.UnregisterEndpointResponse, error) {
	if err := r.authorize(ctx, request.GetService()); err != nil {
		return nil, wire.Status(err)
	}
	r.mu.Lock()
	held := r.entry(request.GetService()).leases[request.GetId()]
	r.mu.Unlock()
	r.expire(request.GetService(), request.GetId(), held)
	return &apiv1.UnregisterEndpointResponse{}, nil
}

// expire ends a lease unless it was replaced.
func (r *Registry) expire(name, id string, held *lease) {
	r.mu.Lock()
	defer r.mu.Unlock()
	entry := r.entry(name)
	if held != nil && entry.leases[id] == held {
		held.stop()
		delete(entry.leases, id)
	}
	r.publish(name, entry)
}

// dropLeases ends every lease of a service that was removed.
func (s *service) dropLeases() {
	for _, held := range s.leases {
		held.stop()
	}
	s.leases = nil
}

// merged is the service's endpoints, sorted: its instances with the values that the app set on them, and those that the app
// registered. It is nil when the service does not exist.
func (s *service) merged() []*apiv1.Endpoint {
	if len(s.leases) == 0 {
		return s.instances
	}
	list := make([]*apiv1.Endpoint, 0, len(s.instances)+len(s.leases))
	for _, instance := range s.instances {
		if held := s.leases[instance.GetId()]; held != nil {
			instance = proto.Clone(instance).(*apiv1.Endpoint)
			instance.Values = held.endpoint.GetValues()
		}
		list = append(list, instance)
	}
	for _, held := range s.leases {
		if held.endpoint.GetAppOwned() && !slices.ContainsFunc(s.instances, func(e *apiv1.Endpoint) bool { return e.GetId() == held.endpoint.GetId() }) {
			list = append(list, held.endpoint)
		}
	}
	if len(list) == 0 && s.instances == nil {
		return nil
	}
	slices.SortFunc(list, byID)
	return list
}

// registered is the endpoint of a request. For an instance it has only values.
func registered(request *apiv1.RegisterEndpointRequest, instance bool) (*apiv1.Endpoint, error) {
	id, values := request.GetId(), maps.Clone(request.GetValues())
	plain := request.GetAddress() == "" && request.GetPort() == 0 && len(request.GetPorts()) == 0 && request.GetWeight() == 0
	if instance {
		if !plain {
			return nil, fmt.Errorf("%q is an instance that the zone runs: only values can be set on it, not an address: %w", id, errdefs.ErrInvalidArgument)
		}
		return &apiv1.Endpoint{Id: id, Values: values}, nil
	}
	if plain {
		return nil, fmt.Errorf("no instance is named %q; an endpoint of your own needs an address and a port: %w", id, errdefs.ErrNotFound)
	}
	address, err := netip.ParseAddr(request.GetAddress())
	if err != nil || address.IsUnspecified() || address.IsMulticast() || address.Zone() != "" {
		return nil, fmt.Errorf("the address %.64q is not the IP address of a host: %w", request.GetAddress(), errdefs.ErrInvalidArgument)
	}
	weight := request.GetWeight()
	if weight == 0 {
		weight = normalWeight
	}
	return &apiv1.Endpoint{
		Id: id, Address: address.String(), Port: request.GetPort(), Ports: maps.Clone(request.GetPorts()),
		Weight: weight, State: apiv1.Endpoint_HEALTHY, Values: values, AppOwned: true,
	}, nil
}

// checkRegistration returns how long a registration is valid, or what is wrong with it.
func checkRegistration(request *apiv1.RegisterEndpointRequest) (time.Duration, error) {
	if id := request.GetId(); !isName(id) {
		return 0, fmt.Errorf("the id %.64q must be of letters, digits, \"-\", \"_\" and \".\", at most %d: %w", id, maxID, errdefs.ErrInvalidArgument)
	}
	if named := len(request.GetPorts()); named > maxPorts {
		return 0, fmt.Errorf("the endpoint has %d named ports; the limit is %d: %w", named, maxPorts, errdefs.ErrInvalidArgument)
	}
	ports := []int32{}
	if request.GetAddress() != "" || request.GetPort() != 0 {
		ports = append(ports, request.GetPort())
	}
	for name, port := range request.GetPorts() {
		if !isName(name) {
			return 0, fmt.Errorf("the port name %.64q must be of letters, digits, \"-\", \"_\" and \".\": %w", name, errdefs.ErrInvalidArgument)
		}
		ports = append(ports, port)
	}
	for _, port := range ports {
		if port < 1 || port > 65535 {
			return 0, fmt.Errorf("a port must be between 1 and 65535, but is %d: %w", port, errdefs.ErrInvalidArgument)
		}
	}
	if weight := request.GetWeight(); weight < 0 || weight > maxWeight {
		return 0, fmt.Errorf("the weight must be between 0 and %d, but is %d: %w", maxWeight, weight, errdefs.ErrInvalidArgument)
	}
	size := 0
	for key, value := range request.GetValues() {
		size += len(key) + len(value)
		if key == "" || !printable(key) || !printable(value) {
			return 0, fmt.Errorf("values must be text without control characters, but %.64q is not: %w", key, errdefs.ErrInvalidArgument)
		}
	}
	if size > maxValues {
		return 0, fmt.Errorf("the values have %d bytes; the limit is %d: %w", size, maxValues, errdefs.ErrInvalidArgument)
	}
	ttl := defaultLease
	if request.GetLease() != nil {
		ttl = request.GetLease().AsDuration()
	}
	if ttl < minLease || ttl > maxLease {
		return 0, fmt.Errorf("the lease must be between %s and %s, but is %s: %w", minLease, maxLease, ttl, errdefs.ErrInvalidArgument)
	}
	return ttl, nil
}

// authorize lets an app change its own services only.
func (r *Registry) authorize(ctx context.Context, service string) error {
	if len(r.secret) == 0 {
		return fmt.Errorf("this zone does not let apps register endpoints: %w", errdefs.ErrNotImplemented)
	}
	app := appOf(service)
	if !isName(service) || app == "" {
		return fmt.Errorf("%.64q is not the name of a service: %w", service, errdefs.ErrInvalidArgument)
	}
	md, _ := metadata.FromIncomingContext(ctx)
	for _, value := range md.Get("authorization") {
		scheme, credential, _ := strings.Cut(value, " ")
		user, key := app, credential
		if strings.EqualFold(scheme, "basic") {
			decoded, err := base64.StdEncoding.DecodeString(credential)
			if err != nil {
				continue
			}
			user, key, _ = strings.Cut(string(decoded), ":")
		}
		if user == app && hmac.Equal([]byte(key), []byte(r.AppKey(app))) {
			return nil
		}
		return fmt.Errorf("this key does not belong to app %q; an app registers endpoints only under its own name, with the key in MAMMOTH_REGISTRY: %w", app, errdefs.ErrPermissionDenied)
	}
	return fmt.Errorf("registering an endpoint needs the app's key; instances have it in MAMMOTH_REGISTRY: %w", errdefs.ErrUnauthenticated)
}

// isName reports whether text can be a name in paths, in ZooKeeper and in DNS.
func isName(text string) bool {
	if text == "" || len(text) > maxID || text[0] == '.' || text[len(text)-1] == '.' || strings.Contains(text, "..") {
		return false
	}
	for _, c := range []byte(text) {
		if !(c == '-' || c == '_' || c == '.' || '0' <= c && c <= '9' || 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z') {
			return false
		}
	}
	return true
}

func printable(text string) bool {
	return utf8.ValidString(text) && !strings.ContainsFunc(text, unicode.IsControl)
}
