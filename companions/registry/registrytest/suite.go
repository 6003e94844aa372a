package registrytest

import (
	"context"
	"fmt"
	"net"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/grpc/test/bufconn"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/mammoth-os/mammoth/internal/credentials"
	apiv1 "github.com/mammoth-os/mammoth/proto/mammoth/api/v1"
	companionv1 "github.com/mammoth-os/mammoth/proto/mammoth/companion/v1"
)

// Registry is what a ResourceManager publishes to and others read. Package resourcemanager/term documents the methods.
type Registry interface {
	apiv1.RegistryServer
	companionv1.CompanionsServer
	Publish(service string, endpoints []*apiv1.Endpoint) (generation int64)
	Expose(service string, expose *apiv1.Expose) (generation int64)
	AwaitBalancers(service string, generation int64, done func())
	Hold()
	Release()
	ExpectBalancer(name string, within time.Duration)
	AllowRegistration(secret []byte)
	KnowApp(app, id string)
	AppKey(app string) string
}

// Run tests what every registry must do. open returns an empty one for an epoch; its generations are above those of earlier epochs.
func Run(t *testing.T, open func(epoch int64) Registry) {
	for name, test := range map[string]func(*rig){
		"a generation rises with each change, and only with one":              generations,
		"a look-up answers what is there, and waits for what is newer":        lookUps,
		"a watch begins with what is there, and goes on with changes":         watches,
		"a watch is taken up again where it broke":                            resumed,
		"a mirror is sent everything, then what changes":                      mirrors,
		"a balancer is sent what is exposed, then what changes":               routes,
		"who awaits balancers waits until each has confirmed":                 confirmations,
		"a balancer that is lost is waited for as long as it asked":           losses,
		"a balancer that was known before a restart is waited for":            expectations,
		"while it is held, companions are sent nothing and nobody waits less": holds,
		"an app's key is its own, and not that of the next one of its name":   keys,
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r := &rig{T: t, Registry: open(epoch)}
				r.serve()
				test(r)
			})
		})
	}
}

const epoch = 7

// rig is a registry that is served over a pipe.
type rig struct {
	*testing.T
	Registry
	lookups    apiv1.RegistryClient
	companions companionv1.CompanionsClient
}

func (r *rig) serve() {
	listener := bufconn.Listen(1 << 20)
	server := credentials.NewServer(credentials.LargestRequest)
	apiv1.RegisterRegistryServer(server, r.Registry)
	companionv1.RegisterCompanionsServer(server, r.Registry)
	ended := make(chan error, 1)
	go func() { ended <- server.Serve(listener) }()
	conn, err := credentials.Dial("registry:7070",
		grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) { return listener.DialContext(ctx) }))
	if err != nil {
		r.Fatal(err)
	}
	r.lookups, r.companions = apiv1.NewRegistryClient(conn), companionv1.NewCompanionsClient(conn)
	r.Cleanup(func() {
		_ = conn.Close()
		server.Stop()
		if err := <-ended; err != nil {
			r.Error(err)
		}
	})
}

// of returns endpoints with these ids: of("web-1 web-2").
func of(ids string) []*apiv1.Endpoint {
	list := []*apiv1.Endpoint{}
	for _, id := range strings.Fields(ids) {
		list = append(list, &apiv1.Endpoint{Id: id, Address: "127.0.0.1", Port: 30001, Weight: 100, State: apiv1.Endpoint_HEALTHY})
	}
	return list
}

// ids are the ids of a service's endpoints.
func ids(service *apiv1.Service) string {
	var all []string
	for _, endpoint := range service.GetEndpoints() {
		all = append(all, endpoint.GetId())
	}
	return strings.Join(all, " ")
}

func exposed() *apiv1.Expose {
	return &apiv1.Expose{Http: &apiv1.Expose_Http{Host: "web.test", Path: "/"}}
}

func generations(r *rig) {
	first := r.Publish("web", of("web-2 web-1"))
	if first <= epoch<<32 {
		r.Errorf("the first generation is %d, and those of the epoch before end with %d", first, int64(epoch)<<32)
	}
	if again := r.Publish("web", of("web-1 web-2")); again != first {
		r.Errorf("the same endpoints in another order are generation %d, and were %d", again, first)
	}
	other := r.Publish("db", of("db-1"))
	empty := r.Publish("web", of(""))
	gone := r.Publish("web", nil)
	if !(first < other && other < empty && empty < gone) {
		r.Errorf("generations are %d, %d, %d, %d", first, other, empty, gone)
	}
	list, err := r.lookups.ListServices(context.Background(), &apiv1.ListServicesRequest{})
	if err != nil || list.GetGeneration() != gone || len(list.GetServices()) != 1 || list.GetServices()[0].GetName() != "db" {
		r.Errorf("there is %v, %v", list, err)
	}
}

func lookUps(r *rig) {
	ctx := context.Background()
	if _, err := r.lookups.GetService(ctx, &apiv1.GetServiceRequest{Name: "web"}); status.Code(err) != codes.NotFound {
		r.Errorf("what does not exist: %v", err)
	}
	index := r.Publish("web", of("web-1"))
	if service, err := r.lookups.GetService(ctx, &apiv1.GetServiceRequest{Name: "web"}); err != nil || ids(service) != "web-1" || service.GetIndex() != index {
		r.Errorf("got %v, %v", service, err)
	}
	time.AfterFunc(5*time.Second, func() { r.Publish("web", of("web-1 web-2")) })
	began := time.Now()
	service, err := r.lookups.GetService(ctx, &apiv1.GetServiceRequest{Name: "web", Index: index})
	if err != nil || ids(service) != "web-1 web-2" || time.Since(began) != 5*time.Second {
		r.Errorf("after %v: %v, %v", time.Since(began), service, err)
	}
	began = time.Now()
	same, err := r.lookups.GetService(ctx, &apiv1.GetServiceRequest{Name: "web", Index: service.GetIndex(), Wait: durationpb.New(time.Second)})
	if err != nil || same.GetIndex() != service.GetIndex() || time.Since(began) != time.Second {
		r.Errorf("with nothing newer, after %v: %v, %v", time.Since(began), same, err)
	}
	r.Publish("web", nil)
	gone, err := r.lookups.GetService(ctx, &apiv1.GetServiceRequest{Name: "web", Index: service.GetIndex()})
	if err != nil || len(gone.GetEndpoints()) != 0 || gone.GetIndex() <= service.GetIndex() {
		r.Errorf("after its removal: %v, %v", gone, err)
	}
}

// follow watches a service from an index on. news returns what has come since its last call, joined by "|".
func (r *rig) follow(name string, index int64) (news func() string) {
	stream, err := r.lookups.WatchService(context.Background(), &apiv1.GetServiceRequest{Name: name, Index: index})
	if err != nil {
		r.Fatal(err)
	}
	return collect(stream.Recv, func(service *apiv1.Service) string { return ids(service) })
}

// collect receives until the stream ends. news returns what has come since its last call.
func collect[M any](receive func() (M, error), text func(M) string) (news func() string) {
	came := make(chan string, 1000)
	go func() {
		for {
			message, err := receive()
			if err != nil {
				came <- status.Code(err).String()
				return
			}
			came <- text(message)
		}
	}()
	return func() string {
		synctest.Wait()
		var all []string
		for len(came) > 0 {
			all = append(all, <-came)
		}
		return strings.Join(all, "|")
	}
}

// want fails unless the news are as wanted.
func (r *rig) want(when string, news func() string, want string) {
	r.Helper()
	if got := news(); got != want {
		r.Errorf("%s: got %q, want %q", when, got, want)
	}
}

func watches(r *rig) {
	r.want("of what does not exist", r.follow("web", 0), "NotFound")
	r.Publish("web", of("web-1"))
	web := r.follow("web", 0)
	r.want("at first", web, "web-1")
	r.Publish("db", of("db-1"))
	r.want("after another service's change", web, "")
	r.Publish("web", of("web-1 web-2"))
	r.want("after a change", web, "web-1 web-2")
	r.Publish("web", nil)
	r.want("after its removal", web, "")
	r.Publish("web", of("web-3"))
	r.want("after its return", web, "web-3")
}

func resumed(r *rig) {
	index := r.Publish("web", of("web-1"))
	nothing := r.follow("web", index)
	r.want("with nothing newer", nothing, "")
	r.Publish("web", of("web-2"))
	r.Publish("web", of("web-3"))
	r.want("from an older index, the newest", r.follow("web", index), "web-3")
	r.want("who watched sees it too", func() string { return last(nothing()) }, "web-3")
	r.want("from before a restart", r.follow("web", 3<<32), "web-3")
}

// last is the newest of several joined news.
func last(news string) string { return news[strings.LastIndex(news, "|")+1:] }

func mirrors(r *rig) {
	r.Publish("web", of("web-1"))
	stream, err := r.companions.Mirror(context.Background(), &companionv1.MirrorRequest{})
	if err != nil {
		r.Fatal(err)
	}
	mirror := collect(stream.Recv, func(update *companionv1.MirrorUpdate) string {
		text := ""
		for _, service := range update.GetServices() {
			text += fmt.Sprintf("%s=%s;", service.GetName(), ids(service))
		}
		return fmt.Sprintf("%v %s %v", update.GetSnapshot(), text, update.GetRemoved())
	})
	r.want("at first", mirror, "true web=web-1; []")
	r.Publish("db", of(""))
	r.want("after a service came", mirror, "false db=; []")
	r.Publish("web", nil)
	r.want("after one went", mirror, "false  [web]")
}

// balancer is a balancer that confirms when the test says so.
type balancer struct {
	stream grpc.BidiStreamingClient[companionv1.RouteReport, companionv1.RouteUpdate]
	news   func() string
	leave  context.CancelFunc
}

func (r *rig) balance(name string, lostAfter time.Duration) *balancer {
	ctx, cancel := context.WithCancel(context.Background())
	stream, err := r.companions.Route(ctx)
	if err != nil {
		r.Fatal(err)
	}
	b := &balancer{stream: stream, leave: cancel}
	b.report(r, &companionv1.RouteReport{Balancer: name, LostAfter: durationpb.New(lostAfter)})
	b.news = collect(stream.Recv, func(update *companionv1.RouteUpdate) string {
		text := ""
		for _, route := range update.GetRoutes() {
			text += fmt.Sprintf("%s=%s;", route.GetService().GetName(), ids(route.GetService()))
		}
		return fmt.Sprintf("%v %s %v", update.GetSnapshot(), text, update.GetRemoved())
	})
	synctest.Wait()
	return b
}

func (b *balancer) report(r *rig, report *companionv1.RouteReport) {
	r.Helper()
	if err := b.stream.Send(report); err != nil {
		r.Fatal(err)
	}
}

func routes(r *rig) {
	r.Publish("web", of("web-1"))
	r.Publish("db", of("db-1"))
	r.Expose("web", exposed())
	edge := r.balance("edge", time.Minute)
	r.want("at first, what is exposed", edge.news, "true web=web-1; []")
	r.Publish("db", of("db-2"))
	r.want("after the change of another service", edge.news, "")
	r.Publish("web", of("web-2"))
	r.want("after a change", edge.news, "false web=web-2; []")
	r.Expose("web", nil)
	r.want("after it is exposed no more", edge.news, "false  [web]")
	second := r.balance("edge", time.Minute)
	r.want("another of the same name", second.news, "true  []")
	r.want("has the first one end", edge.news, "Aborted")
}

// await calls AwaitBalancers; called reports whether it has called back.
func (r *rig) await(service string, generation int64) (called func() bool) {
	done := make(chan struct{})
	r.AwaitBalancers(service, generation, func() { close(done) })
	return func() bool {
		synctest.Wait()
		select {
		case <-done:
			return true
		default:
			return false
		}
	}
}

func confirmations(r *rig) {
	if called := r.await("web", r.Publish("web", of("web-1 web-2"))); !called() {
		r.Error("waits for balancers that there are not")
	}
	r.Expose("web", exposed())
	edge, inner := r.balance("edge", time.Minute), r.balance("inner", time.Minute)
	first := r.Publish("web", of("web-1"))
	second := r.Publish("web", of(""))
	added, removed := r.await("web", first), r.await("web", second)
	edge.report(r, &companionv1.RouteReport{Applied: second})
	if added() || removed() {
		r.Error("done though one balancer has confirmed nothing")
	}
	inner.report(r, &companionv1.RouteReport{Applied: first})
	if !added() || removed() {
		r.Error("want the first generation confirmed, and the second waited for")
	}
	inner.report(r, &companionv1.RouteReport{Leaving: true})
	if !removed() {
		r.Error("waits for a balancer that has left")
	}
}

func losses(r *rig) {
	r.Expose("web", exposed())
	edge := r.balance("edge", 10*time.Second)
	called := r.await("web", r.Publish("web", of("web-1")))
	edge.leave()
	time.Sleep(9 * time.Second)
	if called() {
		r.Error("given up before its time")
	}
	time.Sleep(2 * time.Second)
	if !called() {
		r.Error("still waited for")
	}
}

func expectations(r *rig) {
	r.Expose("web", exposed())
	r.ExpectBalancer("edge", 10*time.Second)
	generation := r.Publish("web", of("web-1"))
	called := r.await("web", generation)
	time.Sleep(5 * time.Second)
	if called() {
		r.Error("not waited for, though it has yet to connect")
	}
	edge := r.balance("edge", time.Minute)
	time.Sleep(20 * time.Second)
	if called() {
		r.Error("not waited for, though it has connected and confirmed nothing")
	}
	edge.report(r, &companionv1.RouteReport{Applied: generation})
	if !called() {
		r.Error("waited for, though it has confirmed")
	}
}

func holds(r *rig) {
	r.Hold()
	r.Hold()
	r.Expose("web", exposed())
	edge := r.balance("edge", time.Minute)
	stream, err := r.companions.Mirror(context.Background(), &companionv1.MirrorRequest{})
	if err != nil {
		r.Fatal(err)
	}
	mirror := collect(stream.Recv, func(update *companionv1.MirrorUpdate) string { return fmt.Sprint(len(update.GetServices())) })
	called := r.await("db", r.Publish("db", of("db-1")))
	r.Publish("web", of("web-1"))
	r.want("a balancer is sent", edge.news, "")
	r.want("a mirror is sent", mirror, "")
	if called() {
		r.Error("done though it is held")
	}
	if service, err := r.lookups.GetService(context.Background(), &apiv1.GetServiceRequest{Name: "web"}); err != nil || ids(service) != "web-1" {
		r.Errorf("a look-up is answered %v, %v", service, err)
	}
	r.Release()
	r.Release()
	r.want("after the release, a balancer is sent", edge.news, "true web=web-1; []")
	r.want("after the release, a mirror is sent", mirror, "2")
	if !called() {
		r.Error("waits though it is released and no balancer serves it")
	}
}

func keys(r *rig) {
	r.AllowRegistration([]byte("secret"))
	nobodys := r.AppKey("web")
	r.KnowApp("web", "application_1_0001")
	first := r.AppKey("web")
	r.KnowApp("web", "")
	if r.AppKey("web") != nobodys {
		r.Error("a removed app has a key")
	}
	r.KnowApp("web", "application_1_0002")
	r.KnowApp("shop", "application_1_0002")
	if second := r.AppKey("web"); second == first || second == nobodys || second == r.AppKey("shop") {
		r.Errorf("keys are %s of nobody, %s, %s", nobodys, first, second)
	}
}
