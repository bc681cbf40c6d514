-- Why are a seller's orders sent back or cancelled? Those that are Returned or Cancelled now, by their latest reason.
-- Paid or not, each order counts once for each of its sellers. An item whose product is gone is of `(unknown)`.
SELECT f."SellerID" AS seller_id,
       coalesce(s."SellerName", '(unknown)') AS seller,
       st."StatusName" AS state,
       coalesce(r."ReasonDescription", '(none given)') AS reason,
       count(DISTINCT f."OrderID") AS orders
FROM gold."FactSales" f
JOIN gold."DimOrderStatus" st ON st."StatusID" = f."StatusID"
LEFT JOIN gold."DimSeller" s ON s."SellerID" = f."SellerID"
LEFT JOIN gold."FactOrderReason" o ON o."OrderItemID" = f."OrderItemID"
LEFT JOIN gold."DimReason" r ON r."ReasonID" = o."ReasonID"
WHERE st."StatusName" IN ('Returned', 'Cancelled')
GROUP BY 1, 2, 3, 4
ORDER BY seller_id, state, orders DESC, reason;
