/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Tracepoints: each entry, exit, second-level fault and injection.
 */
#undef TRACE_SYSTEM
#define TRACE_SYSTEM moat

#if !defined(MOAT_TRACE_H) || defined(TRACE_HEADER_MULTI_READ)
#define MOAT_TRACE_H

#include <linux/tracepoint.h>

TRACE_EVENT(moat_entry,
	TP_PROTO(u32 vcpu, u64 rip),
	TP_ARGS(vcpu, rip),
	TP_STRUCT__entry(
		__field(u32, vcpu)
		__field(u64, rip)
	),
	TP_fast_assign(
		__entry->vcpu = vcpu;
		__entry->rip = rip;
	),
	TP_printk("vcpu %u rip %#llx", __entry->vcpu, __entry->rip)
);

TRACE_EVENT(moat_exit,
	TP_PROTO(u32 vcpu, u64 code, u64 rip, u64 info1, u64 info2),
	TP_ARGS(vcpu, code, rip, info1, info2),
	TP_STRUCT__entry(
		__field(u32, vcpu)
		__field(u64, code)
		__field(u64, rip)
		__field(u64, info1)
		__field(u64, info2)
	),
	TP_fast_assign(
		__entry->vcpu = vcpu;
		__entry->code = code;
		__entry->rip = rip;
		__entry->info1 = info1;
		__entry->info2 = info2;
	),
	TP_printk("vcpu %u code %#llx rip %#llx info %#llx %#llx", __entry->vcpu, __entry->code,
		  __entry->rip, __entry->info1, __entry->info2)
);

TRACE_EVENT(moat_fault,
	TP_PROTO(u32 vcpu, u64 gpa, bool write, bool fetch),
	TP_ARGS(vcpu, gpa, write, fetch),
	TP_STRUCT__entry(
		__field(u32, vcpu)
		__field(u64, gpa)
		__field(bool, write)
		__field(bool, fetch)
	),
	TP_fast_assign(
		__entry->vcpu = vcpu;
		__entry->gpa = gpa;
		__entry->write = write;
		__entry->fetch = fetch;
	),
	TP_printk("vcpu %u gpa %#llx%s%s", __entry->vcpu, __entry->gpa,
		  __entry->write ? " write" : "", __entry->fetch ? " fetch" : "")
);

TRACE_EVENT(moat_inject,
	TP_PROTO(u32 vcpu, u32 event, u32 error),
	TP_ARGS(vcpu, event, error),
	TP_STRUCT__entry(
		__field(u32, vcpu)
		__field(u32, event)
		__field(u32, error)
	),
	TP_fast_assign(
		__entry->vcpu = vcpu;
		__entry->event = event;
		__entry->error = error;
	),
	TP_printk("vcpu %u type %u vector %u error %#x", __entry->vcpu, __entry->event >> 8 & 7,
		  __entry->event & 0xff, __entry->error)
);

#endif

#undef TRACE_INCLUDE_PATH
#define TRACE_INCLUDE_PATH .
#undef TRACE_INCLUDE_FILE
#define TRACE_INCLUDE_FILE trace
#include <trace/define_trace.h>
