// SPDX-License-Identifier: MIT OR GPL-2.0
/*
 * What of the machine no bus finds by itself: the root bridge and its windows, its slots, the serial port,
 * the clock, the power button. Compiled when moat-vmm is built; addresses are those of layout.h.
 */
#include "userspace/vmm/layout.h"

/* Slots of the root bus, from which devices can be taken while the machine runs. */
#define SLOTS(of) \
	of (01) of (02) of (03) of (04) of (05) of (06) of (07) of (08) of (09) of (0A) of (0B) \
	of (0C) of (0D) of (0E) of (0F) of (10) of (11) of (12) of (13) of (14) of (15) of (16) \
	of (17) of (18) of (19) of (1A) of (1B) of (1C) of (1D) of (1E) of (1F)

#define SLOT(n) \
	Device (S0##n) \
	{ \
		Name (_ADR, 0x##n##0000) \
		Name (_SUN, 0x##n) \
		Method (_EJ0, 1) { EJCT = One << 0x##n } \
	}

#define SLOT_NOTIFY(n) \
	If (Local0 & (One << 0x##n)) { Notify (\_SB.PCI0.S0##n, Arg1) }

DefinitionBlock ("", "DSDT", 2, "MOAT", "MOATVMM", 1)
{
	Name (\_S5, Package () { LAYOUT_SLEEP_S5 })

	Scope (\_SB)
	{
		Device (PCI0)
		{
			Name (_HID, EisaId ("PNP0A08"))
			Name (_CID, EisaId ("PNP0A03"))
			Name (_UID, Zero)
			Name (_SEG, Zero)
			Name (_BBN, Zero)
			Name (_CRS, ResourceTemplate ()
			{
				WordBusNumber (ResourceProducer, MinFixed, MaxFixed, PosDecode,
					0, 0, 0, 0, 1)
				IO (Decode16, LAYOUT_PORT_PCI, LAYOUT_PORT_PCI, 1, 8)
				DWordMemory (ResourceProducer, PosDecode, MinFixed, MaxFixed,
					NonCacheable, ReadWrite,
					0, LAYOUT_PCI_MEM, LAYOUT_PCI_MEM_LAST, 0,
					LAYOUT_PCI_MEM_SIZE)
			})

			SLOTS (SLOT)

			/* Nothing of PCI Express is the firmware's own: the system gets it all. */
			Method (_OSC, 4, Serialized)
			{
				CreateDWordField (Arg3, Zero, STAT)

				If (Arg0 != ToUUID ("33db4d5b-1ff7-401c-9657-7441c03dd766"))
				{
					STAT |= 4
				}
				Return (Arg3)
			}
		}

		/* What has happened, and each is told once: events.c. */
		OperationRegion (EVTS, SystemIO, LAYOUT_PORT_EVENTS, LAYOUT_PORT_EVENTS_SIZE)
		Field (EVTS, DWordAcc, NoLock, WriteAsZeros)
		{
			BTNS, 32,
			SLUP, 32,
			SLDN, 32,
			EJCT, 32
		}

		Device (PWRB)
		{
			Name (_HID, EisaId ("PNP0C0C"))
			Name (_UID, Zero)
		}

		Device (GED)
		{
			Name (_HID, "ACPI0013")
			Name (_UID, Zero)
			Name (_CRS, ResourceTemplate ()
			{
				Interrupt (ResourceConsumer, Edge, ActiveHigh, Exclusive)
				{
					LAYOUT_PIN_EVENTS
				}
			})

			/* Arg0: slots; Arg1: 1, look what is there; 3, let go of it */
			Method (SLTS, 2, Serialized)
			{
				Local0 = Arg0
				SLOTS (SLOT_NOTIFY)
			}

			Method (_EVT, 1, Serialized)
			{
				If (BTNS & One)
				{
					Notify (\_SB.PWRB, 0x80)
				}
				SLTS (SLUP, 1)
				SLTS (SLDN, 3)
			}
		}

		/* Configuration space is neither memory nor anybody else's. */
		Device (ECAM)
		{
			Name (_HID, EisaId ("PNP0C02"))
			Name (_UID, Zero)
			Name (_CRS, ResourceTemplate ()
			{
				Memory32Fixed (ReadWrite, LAYOUT_ECAM, LAYOUT_ECAM_SIZE)
			})
		}

		Device (COM1)
		{
			Name (_HID, EisaId ("PNP0501"))
			Name (_UID, One)
			Name (_CRS, ResourceTemplate ()
			{
				IO (Decode16, LAYOUT_PORT_COM1, LAYOUT_PORT_COM1, 1, 8)
				Interrupt (ResourceConsumer, Edge, ActiveHigh, Exclusive)
				{
					LAYOUT_PIN_COM1
				}
			})
		}

		Device (RTC)
		{
			Name (_HID, EisaId ("PNP0B00"))
			Name (_CRS, ResourceTemplate ()
			{
				IO (Decode16, LAYOUT_PORT_RTC, LAYOUT_PORT_RTC, 1, 2)
			})
		}
	}
}
