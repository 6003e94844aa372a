package registry_test

import (
	"context"
	"encoding/base64"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/mammoth-os/mammoth/companions/registry"
	apiv1 "github.com/mammoth-os/mammoth/proto/mammoth/api/v1"
)

func open() *registry.Registry {
	r := registry.New(epoch)
	r.AllowRegistration([]byte("secret"))
	return r
}

func as(r *registry.Registry, app string) context.Context {
	return metadata.NewIncomingContext(context.Background(), metadata.Pairs("authorization", "Bearer "+r.AppKey(app)))
}

func own(service, id string) *apiv1.RegisterEndpointRequest {
	return &apiv1.RegisterEndpointRequest{
		Service: service, Id: id, Address: "127.0.0.1", Port: 9000, Values: map[string]string{"zone": "a"},
		Lease: durationpb.New(10 * time.Second),
	}
}

func TestEndpointOfAnAppsOwnLivesAsLongAsItsLease(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := open()
		ctx := as(r, "web")
		answer, err := r.RegisterEndpoint(ctx, own("admin.web", "a"))
		if err != nil || !answer.GetEndpoint().GetAppOwned() || answer.GetEndpoint().GetWeight() != 100 {
			t.Fatalf("registered %v, %v", answer, err)
		}
		first := answer.GetEndpoint().GetRegisteredAt()
		for range 5 {
			time.Sleep(9 * time.Second)
			if _, err := r.RegisterEndpoint(ctx, own("admin.web", "a")); err != nil {
				t.Fatal(err)
			}
		}
		service, err := r.GetService(ctx, &apiv1.GetServiceRequest{Name: "admin.web"})
		if err != nil || ids(service) != "a" || service.GetEndpoints()[0].GetRegisteredAt() != first {
			t.Fatalf("while renewed: %v, %v", service, err)
		}
		if got := service.GetIndex(); got != epoch+1 {
			t.Errorf("renewing changed the index to %d", got)
		}
		time.Sleep(10*time.Second + time.Millisecond)
		if _, err := r.GetService(ctx, &apiv1.GetServiceRequest{Name: "admin.web"}); status.Code(err) != codes.NotFound {
			t.Fatalf("after the lease: %v", err)
		}
	})
}

func TestAnAppCannotFillTheRegistry(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := open()
		register := func(app string, i int) codes.Code {
			_, err := r.RegisterEndpoint(as(r, app), own(fmt.Sprintf("s%d.%s", i, app), "a"))
			return status.Code(err)
		}
		for i := range 64 {
			if code := register("web", i); code != codes.OK {
				t.Fatalf("service %d is answered %v", i, code)
			}
		}
		if code := register("web", 64); code != codes.ResourceExhausted {
			t.Errorf("one service more is answered %v", code)
		}
		if renewed, other := register("web", 0), register("db", 0); renewed != codes.OK || other != codes.OK {
			t.Errorf("a renewal is answered %v, another app %v", renewed, other)
		}
		time.Sleep(time.Minute)
		if code := register("web", 64); code != codes.OK {
			t.Errorf("after the leases a service is answered %v", code)
		}
	})
}

func TestValuesOfAnInstance(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := open()
		ctx := as(r, "web")
		r.Publish("web", endpoints("web-1", "web-2"))
		set := &apiv1.RegisterEndpointRequest{Service: "web", Id: "web-1", Values: map[string]string{"shard": "3"}}
		if _, err := r.RegisterEndpoint(ctx, set); err != nil {
			t.Fatal(err)
		}
		if _, err := r.RegisterEndpoint(ctx, own("web", "web-1")); status.Code(err) != codes.InvalidArgument {
			t.Errorf("moving an instance elsewhere: %v", err)
		}
		r.Publish("web", endpoints("web-1", "web-3"))
		service, _ := r.GetService(ctx, &apiv1.GetServiceRequest{Name: "web"})
		if ids(service) != "web-1 web-3" || service.GetEndpoints()[0].GetValues()["shard"] != "3" || service.GetEndpoints()[0].GetPort() != 30001 {
			t.Fatalf("the service is %v", service)
		}
		r.Publish("web", endpoints("web-3"))
		if service, _ = r.GetService(ctx, &apiv1.GetServiceRequest{Name: "web"}); ids(service) != "web-3" {
			t.Fatalf("values keep an instance alive: %v", service)
		}
		r.Publish("web", nil)
		if _, err := r.RegisterEndpoint(ctx, set); status.Code(err) != codes.NotFound {
			t.Errorf("values of an instance that is gone: %v", err)
		}
	})
}

func TestUnregister(t *testing.T) {
	r := open()
	ctx := as(r, "web")
	r.Publish("web", endpoints())
	for range 2 {
		if _, err := r.RegisterEndpoint(ctx, own("web", "mine")); err != nil {
			t.Fatal(err)
		}
		for range 2 {
			if _, err := r.UnregisterEndpoint(ctx, &apiv1.UnregisterEndpointRequest{Service: "web", Id: "mine"}); err != nil {
				t.Fatal(err)
			}
		}
		if service, err := r.GetService(ctx, &apiv1.GetServiceRequest{Name: "web"}); err != nil || ids(service) != "" {
			t.Fatalf("after unregistering: %v, %v", service, err)
		}
	}
}

func TestRefusedRegistrations(t *testing.T) {
	r := open()
	ctx := as(r, "web")
	with := func(change func(*apiv1.RegisterEndpointRequest)) *apiv1.RegisterEndpointRequest {
		request := own("web", "a")
		change(request)
		return request
	}
	basic := func(app, key string) context.Context {
		credential := base64.StdEncoding.EncodeToString([]byte(app + ":" + key))
		return metadata.NewIncomingContext(t.Context(), metadata.Pairs("authorization", "Basic "+credential))
	}
	tests := []struct {
		name    string
		ctx     context.Context
		request *apiv1.RegisterEndpointRequest
		code    codes.Code
		says    string
	}{
		{"right", ctx, own("web", "a"), codes.OK, ""},
		{"right, as curl sends it", basic("web", r.AppKey("web")), own("web", "a"), codes.OK, ""},
		{"no key", t.Context(), own("web", "a"), codes.Unauthenticated, "needs the app's key"},
		{"another app's name", ctx, own("db", "a"), codes.PermissionDenied, `does not belong to app "db"`},
		{"beside another app", ctx, own("web.db", "a"), codes.PermissionDenied, `does not belong to app "db"`},
		{"another user", basic("db", r.AppKey("web")), own("web", "a"), codes.PermissionDenied, "does not belong"},
		{"no service", ctx, own("", "a"), codes.InvalidArgument, "not the name of a service"},
		{"id with a slash", ctx, own("web", "../db"), codes.InvalidArgument, "the id"},
		{"much metadata", ctx, with(func(e *apiv1.RegisterEndpointRequest) { e.Values = map[string]string{"a": strings.Repeat("x", 10<<20)} }), codes.InvalidArgument, "the values have 10485761 bytes; the limit is 4096"},
		{"control characters", ctx, with(func(e *apiv1.RegisterEndpointRequest) { e.Values = map[string]string{"a": "x\n"} }), codes.InvalidArgument, "control characters"},
		{"host name", ctx, with(func(e *apiv1.RegisterEndpointRequest) { e.Address = "localhost;" }), codes.InvalidArgument, "is not the IP address"},
		{"any address", ctx, with(func(e *apiv1.RegisterEndpointRequest) { e.Address = "0.0.0.0" }), codes.InvalidArgument, "is not the IP address"},
		{"port", ctx, with(func(e *apiv1.RegisterEndpointRequest) { e.Port = 70000 }), codes.InvalidArgument, "a port must be"},
		{"named port", ctx, with(func(e *apiv1.RegisterEndpointRequest) { e.Ports = map[string]int32{"x": 0} }), codes.InvalidArgument, "a port must be"},
		{"many ports", ctx, with(func(e *apiv1.RegisterEndpointRequest) {
			e.Ports = map[string]int32{}
			for i := range int32(17) {
				e.Ports[fmt.Sprint("p", i)] = i + 1
			}
		}), codes.InvalidArgument, "17 named ports; the limit is 16"},
		{"weight", ctx, with(func(e *apiv1.RegisterEndpointRequest) { e.Weight = -1 }), codes.InvalidArgument, "the weight"},
		{"lease", ctx, with(func(e *apiv1.RegisterEndpointRequest) { e.Lease = durationpb.New(time.Hour) }), codes.InvalidArgument, "the lease"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			_, err := r.RegisterEndpoint(test.ctx, test.request)
			if status.Code(err) != test.code || !strings.Contains(fmt.Sprint(err), test.says) {
				t.Fatalf("got %v, want %s: %s", err, test.code, test.says)
			}
		})
	}
	_, err := registry.New(0).RegisterEndpoint(ctx, own("web", "a"))
	if status.Code(err) != codes.Unimplemented {
		t.Errorf("a zone that allows no registration: %v", err)
	}
	for i := range 1000 {
		// No lease ends before the last endpoint is there.
		_, _ = r.RegisterEndpoint(ctx, with(func(e *apiv1.RegisterEndpointRequest) { e.Id, e.Lease = fmt.Sprint(i), durationpb.New(5*time.Minute) }))
	}
	if _, err := r.RegisterEndpoint(ctx, own("web", "one-more")); status.Code(err) != codes.ResourceExhausted {
		t.Errorf("endpoint 1001: %v", err)
	}
	if _, err := r.RegisterEndpoint(ctx, own("admin.web", "one-more")); status.Code(err) != codes.ResourceExhausted {
		t.Errorf("endpoint 1001, in another service: %v", err)
	}
}

func TestTheKeyOfAnEarlierAppOfTheNameIsRefused(t *testing.T) {
	r := open()
	r.KnowApp("web", "application_1_1")
	earlier := as(r, "web")
	if _, err := r.RegisterEndpoint(earlier, own("web", "a")); err != nil {
		t.Fatal(err)
	}
	for _, id := range []string{"", "application_1_2"} {
		r.KnowApp("web", id)
		if _, err := r.RegisterEndpoint(earlier, own("web", "a")); status.Code(err) != codes.PermissionDenied {
			t.Errorf("with the name held by %q: %v", id, err)
		}
		if _, err := r.UnregisterEndpoint(earlier, &apiv1.UnregisterEndpointRequest{Service: "web", Id: "a"}); status.Code(err) != codes.PermissionDenied {
			t.Errorf("with the name held by %q: %v", id, err)
		}
	}
	if _, err := r.RegisterEndpoint(as(r, "web"), own("web", "a")); err != nil {
		t.Error(err)
	}
}
