// SPDX-License-Identifier: MIT OR GPL-2.0
/*
 * What of the machine no bus finds by itself: the root bridge and its windows, the serial port, the
 * clock. Compiled when moat-vmm is built; addresses are those of layout.h.
 */
#include "userspace/vmm/layout.h"

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
