package zone

import apiv1 "github.com/mammoth-os/mammoth/proto/mammoth/api/v1"

// roomChanged tells that the disk is full, or is not any more.
func (z *Core) roomChanged(full string) {
	event := &apiv1.Event{Kind: "zone", From: "DISK_FULL", Message: "the disk of the ResourceManager has room again"}
	z.full = full
	if full != "" {
		event = &apiv1.Event{Kind: "zone", To: "DISK_FULL", Message: z.full}
	}
	z.tell(event)
}
